"""Judge whether this host can run sandboxes, and say what to type where it cannot.

Rule 1: no I/O. `HostFacts` (collected by `doctor/probe.py`) in, `Check` results out.
Rule 2: what the grades mean is in `result.py`. A fact that could not be found out is never "ok".
Rule 3: what was tried on this host counts more than what its settings say; settings only explain a failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloister.doctor import apparmor, engines
from cloister.doctor.engines import EngineFacts
from cloister.doctor.packages import install
from cloister.doctor.result import Check, Grade, fail, ok, warn
from cloister.doctor.version import version

MINIMUM_KERNEL = (5, 2)  # open_tree(2) and move_mount(2)
RECOMMENDED_KERNEL = (5, 12)  # mount_setattr(2): ID-mapped mounts, for root
MINIMUM_BWRAP = (0, 5)  # --perms
RECOMMENDED_BWRAP = (0, 8)  # --disable-userns
MINIMUM_PYTHON = (3, 11)
ARCHITECTURES = frozenset(
    {"x86_64", "aarch64"}
)  # those that the tests run on, or the syscall tables are checked for
LIMIT_CONTROLLERS = ("memory", "cpu", "pids")
FDS_A_CONNECTION = 2
FDS_OF_THE_GATEWAY = 320  # listeners, and a reserve
WANTED_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Something that was really tried. `step` is where it failed, `error` what the system said."""

    succeeded: bool
    step: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What was found on a host. None where it is unknown or absent.

    `namespaces`: user and network namespaces were entered and the network set up; `bubblewrap`: a program ran
    in bwrap inside them, as `run` does it.
    """

    system: str = "Linux"
    kernel: str = ""
    architecture: str = ""
    python_version: tuple[int, int, int] = (0, 0, 0)
    python: str = ""
    uid: int = -1
    package_manager: str = ""  # "apt", "dnf", "pacman", "apk", "zypper" or empty
    bwrap: str | None = None
    bwrap_version: tuple[int, ...] | None = None
    namespaces: Attempt | None = None
    bubblewrap: Attempt | None = None
    ipv6: bool | None = None
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: int | None = None
    seccomp_filters: bool = False
    libseccomp: bool = False
    cgroup_controllers: frozenset[str] = frozenset()
    id_mapped_mounts: bool | None = None
    legacy_tiocsti: int | None = None
    open_files_hard: int | None = None  # None: unlimited
    ca_bundle: str | None = None
    container: str = ""  # "docker", "podman", …; empty outside
    programs: frozenset[str] = frozenset()  # of the optional ones, those that were found
    engines: tuple[EngineFacts, ...] = ()


def check(facts: HostFacts) -> list[Check]:
    """Judge a host. On a system that is not Linux there is one result."""
    unsupported = _system(facts)
    if unsupported is not None:
        return [unsupported]
    return [
        _kernel(facts),
        _architecture(facts),
        _python(facts),
        _bwrap(facts),
        _namespaces(facts),
        _bubblewrap(facts),
        _ipv6(facts),
        _seccomp(facts),
        _libseccomp(facts),
        _limits(facts),
        _open_files(facts),
        _ca_bundle(facts),
        *_where_it_matters(facts),
        _optional(facts),
        *(engines.check(one) for one in facts.engines),
    ]


def usable(checks: Iterable[Check]) -> bool:
    """Whether `cloister run` would work."""
    return all(one.grade is not Grade.FAIL for one in checks)


def _system(facts: HostFacts) -> Check | None:
    if facts.system == "Darwin":
        return fail(
            "system",
            "macOS has no Linux namespaces; sandboxes in containers there are planned, not built.",
            "run cloister on Linux: a virtual machine (Lima, OrbStack, UTM) or a remote host",
        )
    if facts.system != "Linux":
        return fail("system", f"cloister needs Linux, and this is {facts.system!r}.", "on Windows: use WSL 2")
    # WSL 1 translates system calls and says 4.4.0-…-Microsoft; WSL 2 is a kernel: …-microsoft-standard-WSL2.
    if facts.kernel.endswith("-Microsoft"):
        return fail(
            "system",
            "this is WSL 1, which has no Linux kernel and so no namespaces.",
            "in PowerShell: wsl --set-version DISTRIBUTION 2",
        )
    return None


def _kernel(facts: HostFacts) -> Check:
    found = version(facts.kernel)
    if found < MINIMUM_KERNEL:
        return fail("kernel", f"Linux {facts.kernel!r} is too old: 5.2 is needed.", "upgrade the kernel")
    if found < RECOMMENDED_KERNEL:
        sentence = (
            f"Linux {facts.kernel} works for an ordinary user; running as root needs 5.12 (ID-mapped mounts)."
        )
        if facts.uid == 0:
            return fail("kernel", sentence, "run cloister as an ordinary user, or upgrade the kernel")
        return warn("kernel", sentence, "upgrade the kernel if you need cloister as root")
    return ok("kernel", f"Linux {facts.kernel}.")


def _architecture(facts: HostFacts) -> Check:
    if facts.architecture in ARCHITECTURES:
        return ok("architecture", f"{facts.architecture}.")
    return warn(
        "architecture",
        f"{facts.architecture!r} is not tested; the seccomp filter covers only the native system call table.",
        "prefer x86_64 or aarch64, and run the test suite: make test",
    )


def _python(facts: HostFacts) -> Check:
    text = ".".join(map(str, facts.python_version))
    if facts.python_version[:2] < MINIMUM_PYTHON:
        return fail(
            "python",
            f"Python {text} is too old: 3.11 is needed.",
            "pipx install --python python3.11 cloister",
        )
    return ok("python", f"Python {text} at {facts.python}.")


def _bwrap(facts: HostFacts) -> Check:
    name = "bubblewrap"
    if facts.bwrap is None:
        return fail(
            name, "bubblewrap (bwrap) is not installed.", install("bubblewrap", facts.package_manager)
        )
    found = facts.bwrap_version
    if not found:
        return fail(
            name,
            f"{facts.bwrap!r} does not tell its version.",
            f"type: {facts.bwrap} --version; then reinstall it",
        )
    text = ".".join(map(str, found))
    if found < MINIMUM_BWRAP:
        return fail(
            name,
            f"bubblewrap {text} is too old: 0.5 is needed, 0.8 recommended.",
            install(name, facts.package_manager),
        )
    if found < RECOMMENDED_BWRAP:
        return warn(
            name,
            f"bubblewrap {text} has no --disable-userns: only seccomp forbids new user namespaces inside.",
            install(name, facts.package_manager),
        )
    return ok(name, f"bubblewrap {text} at {facts.bwrap}.")


def _namespaces(facts: HostFacts) -> Check:
    name, attempt = "user namespaces", facts.namespaces
    if attempt is None:
        return fail(
            name, "whether user namespaces work could not be tried.", "run cloister doctor again, on its own"
        )
    if attempt.succeeded:
        return ok(name, "a user and a network namespace were made and set up.")
    said = f" ({attempt.step}: {attempt.error})"
    return fail(name, _why_no_namespaces(facts) + said + ".", _how_to_get_namespaces(facts))


def _bubblewrap(facts: HostFacts) -> Check:
    name, attempt = "a sandbox", facts.bubblewrap
    if attempt is None:
        return fail(
            name, "no sandbox was tried, because of what is missing above.", "first mend what is above"
        )
    if attempt.succeeded:
        return ok(name, "a program ran in bubblewrap, in namespaces of its own.")
    sentence = f"bubblewrap could not start a program ({attempt.error})."
    if facts.apparmor_restricts_userns == 1 and facts.uid != 0:
        return fail(name, sentence, _how_to_get_namespaces(facts))
    if facts.container:
        return fail(
            name,
            f"{sentence} This is a container ({facts.container}), which masks /proc or filters mounts.",
            _loosen(facts),
        )
    return fail(name, sentence, install("bubblewrap", facts.package_manager))


def _why_no_namespaces(facts: HostFacts) -> str:
    if facts.max_user_namespaces == 0:
        return "the kernel is set to allow no user namespaces"
    if facts.uid != 0 and facts.unprivileged_userns_clone == 0:
        return "this kernel lets only root create user namespaces"
    if facts.uid != 0 and facts.apparmor_restricts_userns == 1:
        return "AppArmor restricts user namespaces to programs with a profile"
    if facts.container:
        return f"the container that this runs in ({facts.container}) forbids user namespaces"
    return "user and network namespaces cannot be made"


def _how_to_get_namespaces(facts: HostFacts) -> str:
    if facts.max_user_namespaces == 0:
        return _sysctl("user.max_user_namespaces=15000")
    if facts.uid != 0 and facts.unprivileged_userns_clone == 0:
        return _sysctl("kernel.unprivileged_userns_clone=1")
    if facts.uid != 0 and facts.apparmor_restricts_userns == 1:
        return apparmor.install_commands(bwrap=facts.bwrap or "/usr/bin/bwrap", python=facts.python)
    if facts.container:
        return _loosen(facts)
    return "look for a security module or seccomp filter that denies unshare(2): dmesg | tail"


def _loosen(facts: HostFacts) -> str:
    options = "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    return f"run cloister on the host, or start the container with: {facts.container} run {options} …"


def _sysctl(setting: str) -> str:
    return f"sudo sysctl -w {setting}; echo '{setting}' | sudo tee /etc/sysctl.d/60-cloister.conf"


def _ipv6(facts: HostFacts) -> Check:
    if facts.ipv6:
        return ok("IPv6", "a fresh network namespace has IPv6, and it is captured.")
    if facts.ipv6 is None:
        return warn(
            "IPv6",
            "whether a fresh network namespace has IPv6 could not be tried.",
            "first mend what is above",
        )
    return ok("IPv6", "a fresh network namespace has no IPv6 here, so there is none to capture.")


def _seccomp(facts: HostFacts) -> Check:
    if facts.seccomp_filters:
        return ok("seccomp", "the kernel filters system calls.")
    return fail(
        "seccomp",
        "this kernel has no seccomp filters, so the sandbox could use io_uring, bpf, TIOCSTI and others.",
        "use a kernel with CONFIG_SECCOMP_FILTER=y (every distribution's has it)",
    )


def _libseccomp(facts: HostFacts) -> Check:
    if facts.libseccomp:
        return ok("libseccomp", "the library that compiles the filter loads.")
    return fail(
        "libseccomp",
        "libseccomp.so.2, which compiles the filter, is missing.",
        install("libseccomp", facts.package_manager),
    )


def _limits(facts: HostFacts) -> Check:
    missing = [name for name in LIMIT_CONTROLLERS if name not in facts.cgroup_controllers]
    if not missing:
        return ok("limits", "memory, CPU and process limits are held by a cgroup.")
    held = [name for name in LIMIT_CONTROLLERS if name in facts.cgroup_controllers]
    if held:
        sentence = (
            f"the cgroup holds {' and '.join(held)}; {' and '.join(missing)} only by rlimits, per process."
        )
    else:
        sentence = (
            "no cgroup is delegated: memory and processes are limited by rlimits, per process; CPU is not."
        )
    return warn(
        "limits", sentence, "with systemd: systemd-run --user --scope -p Delegate=yes cloister run -- COMMAND"
    )


def _open_files(facts: HostFacts) -> Check:
    name, hard = "open files", facts.open_files_hard
    if hard is None:
        return ok(name, "unlimited.")
    connections = max(0, (hard - FDS_OF_THE_GATEWAY) // FDS_A_CONNECTION)
    if connections >= WANTED_CONNECTIONS:
        return ok(name, f"{hard} descriptors bear {connections} connections at once.")
    return warn(
        name,
        f"{hard} descriptors bear only {connections} connections at once.",
        "echo '* hard nofile 65536' | sudo tee /etc/security/limits.d/60-cloister.conf; then log in again",
    )


def _ca_bundle(facts: HostFacts) -> Check:
    if facts.ca_bundle:
        return ok("CA bundle", f"the host's roots are at {facts.ca_bundle}.")
    return warn(
        "CA bundle",
        "no bundle of root certificates was found: no TLS server would be trusted in the sandbox.",
        install("ca-certificates", facts.package_manager),
    )


def _where_it_matters(facts: HostFacts) -> list[Check]:
    checks = []
    if facts.uid == 0:
        checks.append(_root(facts))
    if facts.container:
        checks.append(
            ok(
                "container",
                f"this runs inside a container ({facts.container}); what was tried above counts there too.",
            )
        )
    if facts.legacy_tiocsti == 1:
        checks.append(
            ok(
                "TIOCSTI",
                "the kernel allows TIOCSTI (dev.tty.legacy_tiocsti=1); the seccomp filter does not.",
            )
        )
    return checks


def _root(facts: HostFacts) -> Check:
    if facts.id_mapped_mounts:
        return ok("root", "running as root: the agent gets an ordinary uid through ID-mapped mounts.")
    return fail(
        "root",
        "as root, ID-mapped mounts keep the agent from being root; this kernel or file system has none.",
        "run cloister as an ordinary user",
    )


def _optional(facts: HostFacts) -> Check:
    missing = [name for name in ("git", "tmux") if name not in facts.programs]
    if not missing:
        return ok("optional", "git and tmux are here.")
    return ok("optional", f"{' and '.join(missing)} not found; cloister itself needs neither.")
