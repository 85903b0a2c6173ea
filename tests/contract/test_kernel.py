"""The agent has no power over the kernel, the host or other processes (ATTACKS K, FS), in every runtime alike."""

from __future__ import annotations

import platform

import pytest

from tests.contract.conftest import World

X86 = platform.machine() == "x86_64"
# Each by its number, so that no library hides it: x86-64, others.
CALLS = {
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "keyctl": (250, 219), "kexec_load": (246, 104), "io_uring_setup": (425, 425), "open_tree": (428, 428),
    "fsopen": (430, 430), "clone3": (435, 435), "openat2": (437, 437), "mount_setattr": (442, 442),
    "setns": (308, 268), "init_module": (175, 105), "open_by_handle_at": (304, 265), "swapon": (167, 224),
    "reboot": (169, 142), "acct": (163, 89), "mount": (165, 40), "chroot": (161, 51), "pivot_root": (155, 41),
}  # fmt: skip


def test_dangerous_system_calls(kept: World) -> None:
    """K-4, K-7. EPERM or ENOSYS; the control is getpid."""
    numbers = " ".join(str(pair[0 if X86 else 1]) for pair in CALLS.values())
    script = (
        f"for (qw({numbers})) {{ $! = 0; my $r = syscall($_, 0, 0, 0, 0, 0, 0); "
        'print "BREACHED $_ $r $!\\n" unless $r == -1 && ($! == 1 || $! == 38) } '
        f'print "control\\n" if syscall({39 if X86 else 172}) > 0'
    )
    assert kept.perl(script).out == "control\n"


@pytest.mark.parametrize("flag", ["0x10000000", "0x40000000", "0x00020000", "0x20000000"])
def test_new_namespaces_are_refused(kept: World, flag: str) -> None:
    """K-2: clone and unshare, with each kind of namespace that would give power."""
    clone, unshare = (56, 272) if X86 else (220, 97)
    script = f'for ({clone}, {unshare}) {{ $! = 0; my $r = syscall($_, {flag}, 0, 0, 0, 0); print "$_ ", $!+0, "\\n"; exit if $r == 0 }}'
    assert kept.perl(script).out == f"{clone} 1\n{unshare} 1\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "unshare --user true", "unshare --user --map-root-user --net true", "unshare --mount true",
        "nsenter --target 1 --net true", "mount -t tmpfs none /tmp", "mount --bind /usr /tmp", "umount /proc",
        "mknod disk b 8 0", "dmesg", "echo 1 > /proc/sys/kernel/sysrq", "echo c > /proc/sysrq-trigger",
        "touch /usr/x", "touch /etc/x", "echo x >> /etc/passwd", "echo x >> /etc/resolv.conf", "ls /root/.ssh",
        "ls /var/run/docker.sock /run/docker.sock /run/podman /run/containerd", "cat /etc/shadow",
    ],
)  # fmt: skip
def test_mounts_devices_and_the_rest_of_the_system(kept: World, attempt: str) -> None:
    """K-2, FS-3, FS-4; the control is that the same shell runs."""
    done = kept.sh(f"true && echo control; {{ {attempt}; }} >/dev/null 2>&1 && echo BREACHED")
    assert done.out == "control\n", done


def test_sockets_of_other_families(kept: World) -> None:
    """K-4, NET-3: packet, vsock, alg, bluetooth, netlink of netfilter; raw IP. The control: TCP, UDP, Unix."""
    script = (
        'for ([17,3,0],[40,1,0],[38,5,0],[31,1,0],[16,3,12],[2,3,1],[10,3,58]) { print "BREACHED @$_\\n" if socket(my $s, $$_[0], $$_[1], $$_[2]) } '
        'for ([2,1,0],[2,2,0],[1,1,0]) { print "ok" if socket(my $s, $$_[0], $$_[1], $$_[2]) }'
    )
    assert kept.perl(script).out == "okokok"


def test_terminal_injection_is_refused(kept: World) -> None:
    """K-4: TIOCSTI and TIOCLINUX, on a terminal of its own."""
    script = (
        'use Fcntl; sysopen(my $m, "/dev/ptmx", O_RDWR) or die; for (0x5412, 0x541C) { my $c = "x"; $! = 0; '
        'my $r = ioctl($m, $_, $c); print defined $r ? "BREACHED" : $! == 1 ? "refused " : "else $! " }'
    )
    assert kept.perl(script).out == "refused refused "


def test_processes_outside_are_invisible(kept: World) -> None:
    """K-3: pid 1 is the sandbox's own, and there are a handful."""
    done = kept.sh(
        "ls /proc | grep -c '^[0-9]'; cat /proc/1/environ 2>/dev/null | tr '\\0' '\\n' | grep -c HOSTNAME_OF_HOST"
    )
    count, leaked = done.out.split()
    assert int(count) < 20
    assert leaked == "0"


def test_core_dumps_are_off(kept: World) -> None:
    """K-3: they would land in the workspace with all memory."""
    assert kept.sh("ulimit -c").out == "0\n"


def test_no_descriptor_is_inherited(kept: World) -> None:
    """K-5."""
    assert kept.perl(
        'opendir my $d, "/proc/self/fd"; print join " ", sort grep /^[0-9]/ && $_ != fileno($d), readdir $d'
    ).out in ("0 1 2", "0 1 2 3")


def test_temporary_directories_run_nothing_in_containers(kept: World) -> None:
    """`noexec` in an image; the embedded runtime's /tmp is a user's own, and is where builds run."""
    done = kept.sh("cp /bin/true /tmp/t && /tmp/t && echo ran; cp /bin/true ~/t && ~/t && echo home")
    assert done.out == ("ran\nhome\n" if kept.engine is None else "home\n")
