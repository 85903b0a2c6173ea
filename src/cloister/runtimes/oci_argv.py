"""Render the command lines of a container engine, for docker and podman.

Rule 1: no I/O, and argv lists only. Every option is written with its value in one word (`--name=VALUE`), so a value
        that begins with "-" is never an option.
Rule 2: nothing confidential: the environment travels through a descriptor (`--env-file=/dev/fd/N`).
Rule 3: what an image says of itself (entry point, user, health check, volumes' owners) never widens what is written
        here: user, entry point, capabilities and mounts are always given.
Rule 4: no image is fetched: `--pull=never`.
"""

from __future__ import annotations

from cloister.runtimes import start_script
from cloister.runtimes.oci_exec_argv import Names
from cloister.sandbox.spec import Bind, Limits, SandboxSpec, Tmpfs, Volume
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SANDBOX_LABEL, PROJECT_LABEL = "dev.cloister.sandbox", "dev.cloister.project"
HOLDER_CAPABILITIES = ("NET_ADMIN", "NET_BIND_SERVICE")
PODMAN = "podman"
SHARED_MEMORY_BYTES = 1 << 30
# Put before the agent's command: it says through one FIFO that everything is mounted, and waits at another until the
# supervisor has looked. End of file, because the supervisor died, is no permission.
READY, GO = "ready", "go"
GATE_SCRIPT = f"printf r >/run/cloister/{READY} && read -r go </run/cloister/{GO} || exit 125\n"
# In a virtual machine nobody outside sees the process that becomes the command: it looks at itself, as invariants.py
# would. The shell is the image's own; an image that lies harms the sandbox that is made of it.
CHECK_SCRIPT = """\
while read -r key value; do
  case $key in
  Cap*:) [ "$value" = 0000000000000000 ] ;;
  NoNewPrivs:) [ "$value" = 1 ] ;;
  Seccomp:) [ "$value" = 2 ] ;;
  esac || { echo "cloister: the sandbox is not what it must be ($key $value): its command was not run" >&2; exit 125; }
done </proc/self/status || exit 125
"""
GATEWAY_USER = 65532  # nobody's: the image gives it the directory of the socket (oci_runtime.py)
_GATEWAY_MEMORY_BYTES = 512 << 20
_GATEWAY_PROCESSES = 128
_GATEWAY_FILES_BYTES = 32 << 20
_HOLDER_MEMORY_BYTES = 64 << 20
_HOLDER_PROCESSES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the argv depend on of the engine. `init`: a program for podman's --init."""

    engine: str
    rootless: bool = False
    remapped: bool = False
    limits: bool = True
    has_init: bool = True
    init: str = ""
    ipv6: bool = True
    cpus: int = 1  # Docker refuses a limit beyond them


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The container of the network namespace. `directory` of the host, or `volume`, is mounted at `target`."""

    image: str
    argv: tuple[str, ...]
    library_path: str
    directory: str
    target: str
    hostname: str
    seccomp: str
    volume: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The gateway's container. The volume `Names.volume` is mounted at `target`; `directory` is memory."""

    image: str
    argv: tuple[str, ...]
    library_path: str
    target: str
    directory: str
    seccomp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """How the agent's container is made beside its spec. `environment` is the descriptor of its environment file,
    `passed` the names whose values the client's own environment holds, `unset` those that the image may set in vain."""

    image: str
    seccomp: str
    environment: int
    passed: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    terminal: bool = False
    stdin: bool = False
    gated: bool = True
    has_sh: bool = True


def run_holder(names: Names, holder: Holder, host: Host) -> list[str]:
    """Make and start the holder, in the background."""
    rendered = ["run", "--detach", f"--name={names.holder}", *_common(names, holder.seccomp)]
    rendered += ["--network=none", f"--hostname={holder.hostname}"]
    if host.ipv6:
        rendered += [
            "--sysctl=net.ipv6.conf.all.disable_ipv6=0",
            "--sysctl=net.ipv6.conf.default.disable_ipv6=0",
        ]
    rendered += ["--user=0:0", *(f"--cap-add={one}" for one in HOLDER_CAPABILITIES)]
    if host.engine == PODMAN and host.rootless:
        rendered.append("--userns=keep-id")
    elif host.remapped:
        rendered.append("--userns=host")
    if host.limits:
        rendered += _limits(_HOLDER_MEMORY_BYTES, None, _HOLDER_PROCESSES)
    rendered += [
        f"--mount={volume(holder.volume, holder.target)}"
        if holder.volume
        else f"--mount={mount(holder.directory, holder.target, writable=True)}",
        f"--env=LD_LIBRARY_PATH={holder.library_path}",
        f"--entrypoint={holder.argv[0]}",
        holder.image,
        *holder.argv[1:],
    ]
    return rendered


def create_volume(name: str, *, sandbox: str = "", project: str) -> list[str]:
    """Make a volume: of one sandbox, or that outlives it."""
    labels = [
        f"--label={PROJECT_LABEL}={project}",
        *([f"--label={SANDBOX_LABEL}={sandbox}"] if sandbox else []),
    ]
    return ["volume", "create", *labels, name]


def run_gateway(names: Names, gateway: Gateway, host: Host) -> list[str]:
    """Make and start the gateway's container, its standard streams those of the client: their end is its end.

    On the engine's own network, as any container that is not told otherwise; nothing of it is published.
    """
    rendered = ["run", "--interactive", f"--name={names.gateway}", *_common(names, gateway.seccomp)]
    rendered += ["--log-driver=none", "--hostname=cloister-gateway", f"--user={GATEWAY_USER}:{GATEWAY_USER}"]
    if host.engine == PODMAN and host.rootless:
        rendered.append("--userns=keep-id")
    elif host.remapped:
        rendered.append("--userns=host")
    if host.limits:
        rendered += _limits(_GATEWAY_MEMORY_BYTES, None, _GATEWAY_PROCESSES)
    rendered += [
        f"--mount={volume(names.volume, gateway.target)}",
        f"--tmpfs={gateway.directory}:rw,nosuid,nodev,noexec,mode=1777,size={_GATEWAY_FILES_BYTES}",
        f"--env=LD_LIBRARY_PATH={gateway.library_path}",
        f"--entrypoint={gateway.argv[0]}",
        gateway.image,
        *gateway.argv[1:],
    ]
    return rendered


def create_agent(names: Names, spec: SandboxSpec, agent: Agent, host: Host) -> list[str]:
    """Make the agent's container; `start` lets it run."""
    rendered = ["create", f"--name={names.agent}", *_common(names, agent.seccomp)]
    rendered += ["--log-driver=none"]  # what it prints is its caller's, and no file's
    rendered += [f"--network=container:{names.holder}", f"--user={spec.uid}:{spec.gid}", "--no-healthcheck"]
    if host.engine == PODMAN and host.rootless:
        # The holder's, which is keep-id: it owns the network namespace, and sysfs asks for that.
        rendered.append(f"--userns=container:{names.holder}")
    elif host.remapped:
        rendered.append("--userns=host")
    if host.has_init:
        rendered += ["--init", *([f"--init-path={host.init}"] if host.init else [])]
    if host.engine == PODMAN:
        rendered += ["--image-volume=tmpfs", "--no-hosts"]
    if agent.terminal:
        rendered.append("--tty")
    if agent.stdin:
        rendered.append("--interactive")
    limits = spec.limits
    if host.limits:
        rendered += _limits(limits.memory_bytes, limits.cpus and min(limits.cpus, host.cpus), limits.pids)
    if not agent.has_sh and host.engine != PODMAN:
        # Else the script does it. To podman one limit means: none of those that its configuration names.
        rendered.append("--ulimit=core=0:0")
    rendered += [f"--shm-size={_shared_memory(limits)}", f"--workdir={spec.cwd}"]
    rendered += [f"--env-file=/dev/fd/{agent.environment}", *(f"--env={name}" for name in agent.passed)]
    # Docker takes a name that its client's environment lacks for "unset it" (moby, ReplaceOrAppendEnvVars).
    option = "unsetenv" if host.engine == PODMAN else "env"
    rendered += [f"--{option}={name}" for name in agent.unset]
    rendered += _mounts(spec, host)
    command = _command(spec, agent, host)
    return [*rendered, f"--entrypoint={command[0]}", agent.image, *command[1:]]


def start_agent(names: Names, *, attached: bool) -> list[str]:
    """Start the agent: in the background, or with the caller's standard streams until it ends."""
    return ["start", "--attach", "--interactive", names.agent] if attached else ["start", names.agent]


def wait_container(name: str) -> list[str]:
    """Wait for a container's end, and print its exit code."""
    return ["wait", name]


def last_words(name: str) -> list[str]:
    """What a container has printed last."""
    return ["logs", "--tail=20", name]


def remove(engine: str, names: Names) -> list[list[str]]:
    """End both containers and remove them, with volumes that nobody named. podman wants the joined one gone first."""
    options = ["rm", "--force", "--volumes"]
    if engine == PODMAN:
        return [[*options, "--time=0", names.agent], [*options, "--time=0", names.holder]]
    return [[*options, names.agent, names.holder]]


def remove_gateway(names: Names) -> list[list[str]]:
    """End the gateway's container, and remove it and the volumes that were made for this sandbox alone."""
    return [
        ["rm", "--force", "--volumes", names.gateway, names.filler],
        ["volume", "rm", "--force", names.volume, names.files],
    ]


def create_filler(name: str, project: str, image: str, volumes: Mapping[str, str]) -> list[str]:
    """Make a container that is never run: through it, the client reaches files of `volumes` (place: name)."""
    how = ["--pull=never", f"--label={PROJECT_LABEL}={project}", "--network=none", "--entrypoint=/-"]
    mounts = [f"--mount={volume(one, place, filled=True)}" for place, one in volumes.items()]
    return ["create", f"--name={name}", *how, *mounts, image]


def volume(name: str, target: str, *, filled: bool = False) -> str:
    """The value of `--mount` for a volume. `filled` by us: the image gives it nothing while it is empty."""
    fields = ["type=volume", f"source={name}", f"target={target}", *(["volume-nocopy"] if filled else [])]
    return ",".join(_csv(field) for field in fields)


def mount(source: str, target: str, *, writable: bool) -> str:
    """The value of `--mount` for a directory or file of the host: one line of CSV (RFC 4180)."""
    fields = ["type=bind", f"source={source}", f"target={target}", *([] if writable else ["readonly"])]
    return ",".join(_csv(field) for field in fields)


def _common(names: Names, seccomp: str) -> list[str]:
    return [
        "--pull=never",
        f"--label={SANDBOX_LABEL}={names.sandbox}",
        f"--label={PROJECT_LABEL}={names.project}",
        "--restart=no",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--security-opt=seccomp={seccomp}",
        "--ipc=private",
        "--cgroupns=private",
    ]


def _shared_memory(limits: Limits) -> int:
    """The bytes of /dev/shm: with the other places in memory (view.in_memory) less than the limit."""
    return min(SHARED_MEMORY_BYTES, limits.memory_bytes // 8) if limits.memory_bytes else SHARED_MEMORY_BYTES


def _limits(memory_bytes: int | None, cpus: float | None, pids: int | None) -> Iterator[str]:
    if memory_bytes is not None:
        yield f"--memory={memory_bytes}"
        yield f"--memory-swap={memory_bytes}"
    if cpus is not None:
        yield f"--cpus={cpus:g}"
    if pids is not None:
        yield f"--pids-limit={pids}"


def _mounts(spec: SandboxSpec, host: Host) -> Iterator[str]:
    for one in spec.mounts:
        match one:
            case Bind():
                yield f"--mount={mount(one.source, one.target, writable=one.writable)}"
            case Volume():
                yield f"--mount={volume(one.name, one.target, filled=True)}"
            case Tmpfs():
                yield f"--tmpfs={one.target}:{_tmpfs(one, spec, host)}"
            case _:
                raise TypeError(
                    f"a container cannot be given {one!r}: runtimes/oci_files.py makes files of it"
                )


def _tmpfs(one: Tmpfs, spec: SandboxSpec, host: Host) -> str:
    options = ["rw", "nosuid", "nodev", "noexec" if one.noexec else "exec"]
    mode = one.mode
    if one.owned and host.engine == PODMAN:
        mode = 0o1777  # podman cannot give it away; the sandbox has no other user
    elif one.owned:
        options += [f"uid={spec.uid}", f"gid={spec.gid}"]
    options.append(f"mode={mode:04o}")
    if one.size_bytes is not None:
        options.append(f"size={one.size_bytes}")
    return ",".join(options)


def _command(spec: SandboxSpec, agent: Agent, host: Host) -> list[str]:
    if not agent.has_sh:
        return list(spec.command)
    limits = spec.limits
    return start_script.start_argv(
        spec.command,
        pids=None if host.limits else limits.pids,
        memory_bytes=None if host.limits else limits.memory_bytes,
        before=GATE_SCRIPT if agent.gated else CHECK_SCRIPT,
    )


def _csv(field: str) -> str:
    quoted = field.replace('"', '""')
    return f'"{quoted}"' if any(character in field for character in ',"\n') else field
