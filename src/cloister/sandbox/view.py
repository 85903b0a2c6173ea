"""Put together what a sandbox sees.

Rule 1: nothing of the host is visible that is not named here: /usr, parts of /etc, tools on PATH, the private
home, the workspace.
Rule 2: order is meaning: home, tools, workspace, then what takes away from the workspace.
Rule 3: small files are copied rather than bound: a bind costs bubblewrap 0.15 ms, and more with every one.
"""

from __future__ import annotations

import os

from cloister.sandbox import environment, gitconfig, private_home, toolchains
from cloister.sandbox.spec import (
    Bind,
    CaBundle,
    Data,
    Dev,
    Directory,
    Limits,
    MaskDirectory,
    MaskFile,
    Proc,
    SandboxSpec,
    Symlink,
    Tmpfs,
)
from cloister.sandbox.workspace import contains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloister.sandbox.facts import Facts
    from cloister.sandbox.protect import Protection
    from cloister.sandbox.spec import Mount

HOSTNAME = "cloister"
PUBLIC = "/run/cloister"
ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# Files of /etc that are the same for every user of the host and hold no secret.
ETC_FILES = (
    "ld.so.cache", "ld.so.conf", "localtime", "timezone", "os-release", "debian_version", "lsb-release",
    "redhat-release", "alpine-release", "mime.types", "protocols", "services", "inputrc", "bash.bashrc",
    "locale.alias", "locale.conf", "magic", "magic.mime", "login.defs", "ssl/openssl.cnf",
)  # fmt: skip
ETC_DIRECTORIES = ("alternatives", "fonts", "ssl/certs", "pki/ca-trust/extracted", "crypto-policies")
ETC_PREFIXES = ("java", "php", "ImageMagick", "texmf", "maven")
MAX_COPY_BYTES = 1 << 20

# What a place in memory may take of the limit of memory: one in so many parts. Together they are less than all of it.
_SHARES = {"/tmp": 2, "/var/tmp": 4, "/dev/shm": 8}  # noqa: S108
_SMALL_SHARE = 64

PROFILE = """\
# cloister: a login shell keeps the PATH that it was given.
[ -n "${PS1-}" ] && [ -n "${BASH-}" ] && [ -f /etc/bash.bashrc ] && . /etc/bash.bashrc
true
"""
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
NSSWITCH += "protocols: files\nservices: files\nrpc: files\n"
RESOLV = "nameserver 127.0.0.1\noptions edns0 timeout:2 attempts:2\n"
BUNDLE_LINKS = ("/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt")


def build(
    *,
    plan: Mapping[str, object],
    facts: Facts,
    scan: Protection,
    sandbox_id: str,
    command: tuple[str, ...],
    cwd: str,
    public_directory: str,
    home_directory: str,
    trust_store: bool = False,
    workspace_source: str | None = None,
) -> SandboxSpec:
    """Build the spec of one sandbox, and make the mount points in its private home.

    `trust_store`: the public directory holds truststore.p12. `workspace_source`: the directory that is seen at the
    workspace's path, if not the workspace itself (workspaces/materialise.py).
    """
    settings = Settings(plan)
    workspace = scan.workspace
    source = workspace_source or workspace
    tools = toolchains.find(facts.path, home=facts.home, workspace=workspace, environ=facts.environ)
    mounts: list[Mount] = [
        *_system(settings.limits),
        *_etc(facts, sandbox_id, settings.texts("ssh_to_https"), shared=bool(scan.beside)),
        *(Data(path, text.encode()) for path, text in settings.package_files.items() if text),
        in_memory("/tmp", settings.limits, 0o1777),  # noqa: S108
        Directory("/var"),
        in_memory("/var/tmp", settings.limits, 0o1777),  # noqa: S108
        Symlink("/var/run", "../run"),
        Symlink("/var/lock", "../run/lock"),
        Bind("/var/lib/dpkg", "/var/lib/dpkg", optional=True),  # `dpkg -l`, `dpkg -S`
        in_memory("/run", settings.limits, 0o755),
        Directory("/run/lock", 0o1777),
        Directory(f"/run/user/{facts.uid}", 0o700),
        Bind(public_directory, PUBLIC),
        Bind(home_directory, facts.home, writable=True),
        # For the owner alone: some tools refuse a ~/.netrc that others may read.
        *(Data(f"{facts.home}/{path}", text.encode(), 0o400) for path, text in settings.files.items()),
        *known_host_lines(facts, settings),
        *(Bind(path, path) for path in tools.binds),
        *(Bind(path, path) for path in settings.read_only),
        Bind(source, workspace, writable=True),
        *(Bind(path, path, writable=True) for path in scan.beside),
        *taken_away(scan),
    ]
    prepare_home(home_directory, facts.home, (workspace, *scan.beside), mounts)
    return SandboxSpec(
        id=sandbox_id,
        hostname=HOSTNAME,
        user_name=facts.user_name,
        uid=facts.uid,
        gid=facts.gid,
        home=facts.home,
        workspace=workspace,
        cwd=cwd if is_there(cwd, workspace, source) else workspace,
        command=command,
        environment=environment.variables(
            facts=facts,
            toolchains=tools,
            sandbox_id=sandbox_id,
            passed=settings.pass_environment,
            chosen=settings.environment,
            packages=package_environment(settings, scan),
            trust_store=trust_store,
            ssh_agent=settings.ssh_agent,
        ),
        mounts=tuple(mounts),
        limits=settings.limits,
    )


def prepare_home(home_directory: str, home: str, shown: Sequence[str], mounts: Sequence[Mount]) -> None:
    """Make the mount points that lie in the private home, which is seen at `home`; not those within what is `shown`."""
    below = f"{home}/"
    private_home.prepare(
        home_directory,
        (
            (mount.target[len(below) :], isinstance(mount, Bind) and os.path.isdir(mount.source))
            for mount in mounts
            if isinstance(mount, Bind | Data)
            and mount.target.startswith(below)
            and all(mount.target == root or not contains(root, mount.target) for root in shown)
        ),
    )


def is_there(cwd: str, workspace: str, source: str) -> bool:
    """Whether the sandbox has this directory in its workspace, which is `source` on the host."""
    if not contains(workspace, cwd):
        return False
    return source == workspace or os.path.isdir(source + cwd[len(workspace) :])


class Settings:
    """The plan's `sandbox` object, with the defaults of what it leaves out, and whether an SSH agent is forwarded."""

    def __init__(self, plan: Mapping[str, object]) -> None:
        found = plan.get("sandbox")
        self._values: Mapping[str, object] = found if isinstance(found, dict) else {}
        self.pass_environment = self.texts("pass_environment")
        self.read_only = self.texts("read_only")
        self.tmp_exec = self._values.get("tmp_exec") is True  # may programs in a container's /tmp be run?
        self.environment = _table(self._values.get("environment"))
        # What the tools of a credential read: path below the home → text with its placeholder.
        self.files = _table(self._values.get("files"))
        packages = plan.get("packages")
        managers = packages if isinstance(packages, dict) else {}
        self.package_environment = _table(managers.get("environment"))
        self.package_files = _table(managers.get("files"))
        unset = managers.get("unset")  # what an image may set, and a sandbox does not hold
        self.package_unset = tuple(str(name) for name in unset) if isinstance(unset, list) else ()
        signing = plan.get("ssh")
        self.ssh_agent = isinstance(signing, dict) and signing.get("agent") is True
        hosts = signing.get("hosts") if isinstance(signing, dict) else None
        self.ssh_hosts = tuple(str(host) for host in hosts) if isinstance(hosts, list) else ()
        self.limits = Limits(
            memory_bytes=self._integer("memory_bytes"),
            cpus=float(cpus) if isinstance(cpus := self._values.get("cpus"), int | float) else None,
            pids=self._integer("pids"),
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of texts; an absent one is empty."""
        value = self._values.get(key)
        return tuple(str(item) for item in value) if isinstance(value, list) else ()

    def _integer(self, key: str) -> int | None:
        value = self._values.get(key)
        return value if isinstance(value, int) else None


def package_environment(settings: Settings, scan: Protection) -> dict[str, str]:
    """What package managers are told, as the plan says, and what they must know of this workspace."""
    repository = f"{scan.workspace}/.git"
    if any(placeholder.path == repository for placeholder in scan.placeholders):
        return {**environment.NO_REPOSITORY, **settings.package_environment}
    return settings.package_environment


def _table(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def in_memory(target: str, limits: Limits, mode: int, *, owned: bool = False, noexec: bool = False) -> Tmpfs:
    """A writable place in memory, with its share of the limit: rlimits do not count what lies there (ATTACKS FS-7)."""
    size = None if limits.memory_bytes is None else limits.memory_bytes // _SHARES.get(target, _SMALL_SHARE)
    return Tmpfs(target, size, mode, owned=owned, noexec=noexec)


def _system(limits: Limits) -> Iterator[Mount]:
    yield Bind("/usr", "/usr")
    for path in ROOT_LINKS:
        if os.path.islink(path):
            yield Symlink(path, os.readlink(path))
        elif os.path.isdir(path):
            yield Bind(path, path)
    yield Proc("/proc")
    yield Dev("/dev")
    yield in_memory("/dev/shm", limits, 0o1777)  # noqa: S108


def _etc(facts: Facts, sandbox_id: str, forges: Sequence[str], *, shared: bool) -> Iterator[Mount]:
    yield Directory("/etc")  # parents that bubblewrap makes by itself have mode 0700
    for name in ETC_DIRECTORIES:
        if os.path.isdir(f"/etc/{name}"):
            yield Bind(f"/etc/{name}", f"/etc/{name}", optional=True)
    for name in sorted(os.listdir("/etc")):
        if name.startswith(ETC_PREFIXES) and os.path.isdir(f"/etc/{name}"):
            yield Bind(f"/etc/{name}", f"/etc/{name}", optional=True)
    for name in ETC_FILES:
        yield from _same_as_host(f"/etc/{name}")
    yield Symlink("/etc/mtab", "/proc/self/mounts")
    user, uid, gid = facts.user_name, facts.uid, facts.gid
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    texts = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{user}:x:{uid}:{gid}::{facts.home}:{shell}\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{user}:x:{gid}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback {HOSTNAME}\n",
        "resolv.conf": RESOLV,
        "nsswitch.conf": NSSWITCH,
        "hostname": f"{HOSTNAME}\n",
        "machine-id": f"{(sandbox_id.encode().hex() + '0' * 32)[:32]}\n",
        "profile": PROFILE,
        "host.conf": "multi on\n",
        "shells": "/bin/sh\n/bin/bash\n/usr/bin/sh\n/usr/bin/bash\n",
    }
    for name, text in texts.items():
        yield Data(f"/etc/{name}", text.encode())
    yield git_configuration(facts, forges, shared=shared)
    yield CaBundle(environment.CA_BUNDLE)
    for link in BUNDLE_LINKS:
        yield Symlink(link, environment.CA_BUNDLE)


def git_configuration(facts: Facts, forges: Sequence[str], *, shared: bool) -> Data:
    """The system-wide configuration of git: the user's name and address, no helper, forges over HTTPS."""
    identity = gitconfig.identity(
        _text(f"{facts.home}/.config/git/config") + _text(f"{facts.home}/.gitconfig")
    )
    git = identity + gitconfig.NO_HELPER + gitconfig.over_https(forges) + (gitconfig.SHARED if shared else "")
    return Data("/etc/gitconfig", git.encode())


def known_host_lines(facts: Facts, settings: Settings) -> Iterator[Mount]:
    """The lines of the user's known_hosts that a forwarded agent is for: without them ssh would ask."""
    if not settings.ssh_agent:
        return
    from cloister.sshagent import known_hosts  # only where an agent is forwarded

    lines = known_hosts.lines(_text(f"{facts.home}/.ssh/known_hosts"), settings.ssh_hosts)
    yield Data("/etc/ssh/ssh_known_hosts", lines.encode())


def _text(path: str) -> str:
    """The start of a file of the user's, with a line's end; empty if there is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(MAX_COPY_BYTES).decode(errors="replace") + "\n"
    except OSError:
        return ""


def _same_as_host(path: str) -> Iterator[Mount]:
    """Show a file of /etc as the host has it: a link into /usr as a link, a small file as a copy."""
    if os.path.islink(path):
        to = os.readlink(path)
        if contains("/usr", os.path.normpath(os.path.join(os.path.dirname(path), to))):
            yield Symlink(path, to)
            return
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_COPY_BYTES + 1)
    except OSError:
        return  # absent here, or not for this user
    if len(content) <= MAX_COPY_BYTES:
        yield Data(path, content)
    else:
        yield Bind(path, path, optional=True)


def taken_away(scan: Protection) -> list[Mount]:
    """Order by path, so that what lies in a directory comes after it."""
    found: dict[str, Mount] = {path: Bind(path, path, writable=True) for path in scan.parents}
    found |= {path: Bind(path, path) for path in scan.read_only}
    found |= {path: Data(path, content) for path, content in scan.redacted}
    found |= {path: MaskFile(path) for path in scan.masked_files}
    found |= {path: MaskDirectory(path) for path in scan.masked_directories}
    for placeholder in scan.placeholders:
        path = placeholder.path
        found[path] = MaskDirectory(path) if placeholder.content is None else Bind(path, path)
    return [found[path] for path in sorted(found, key=lambda path: path.split("/"))]
