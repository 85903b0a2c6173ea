"""Put together what a sandbox in a container sees: the image, and over it what view.py shows of the user's own.

Rule 1: nothing of the host is visible that is not named here: the private home, the workspace, what is declared.
Rule 2: order is meaning: home, workspace, then what takes away from the workspace.
Rule 3: nothing of ours need be in the image. Its programs, users and PATH stay; /tmp runs no programs unless the plan
        says `tmp_exec`.
"""

from __future__ import annotations

from cloister.sandbox import environment, image, view
from cloister.sandbox.spec import Bind, CaBundle, Data, SandboxSpec
from cloister.sandbox.toolchains import Toolchains
from cloister.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.sandbox.facts import Facts
    from cloister.sandbox.protect import Protection
    from cloister.sandbox.spec import Mount


def build(
    *,
    plan: Mapping[str, object],
    facts: Facts,
    found: image.Image,
    scan: Protection,
    sandbox_id: str,
    command: tuple[str, ...],
    cwd: str,
    public_directory: str,
    home_directory: str,
    workspace_source: str | None = None,
) -> SandboxSpec:
    """Build the spec, as `view.build`. `facts` tells the agent's uid and gid in the container."""
    settings = view.Settings(plan)
    workspace = scan.workspace
    source = workspace_source or workspace
    mounts: list[Mount] = [
        view.in_memory("/tmp", settings.limits, 0o1777, noexec=not settings.tmp_exec),  # noqa: S108
        view.in_memory("/var/tmp", settings.limits, 0o1777, noexec=not settings.tmp_exec),  # noqa: S108
        view.in_memory("/run", settings.limits, 0o755, noexec=True),
        view.in_memory(f"/run/user/{facts.uid}", settings.limits, 0o700, owned=True, noexec=True),
        *_etc(facts, found, sandbox_id),
        view.git_configuration(facts, settings.texts("ssh_to_https"), shared=bool(scan.beside)),
        *(Data(path, text.encode()) for path, text in settings.package_files.items()),  # an empty one covers
        *(CaBundle(path) for path in found.trust_stores or image.TRUST_STORES[:1]),
        Bind(public_directory, view.PUBLIC),
        Bind(home_directory, facts.home, writable=True),
        *(Data(f"{facts.home}/{path}", text.encode(), 0o400) for path, text in settings.files.items()),
        *view.known_host_lines(facts, settings),
        *(Bind(path, path) for path in settings.read_only),
        Bind(source, workspace, writable=True),
        *(Bind(path, path, writable=True) for path in scan.beside),
        *view.taken_away(scan),
    ]
    view.prepare_home(home_directory, facts.home, (workspace, *scan.beside), mounts)
    return SandboxSpec(
        id=sandbox_id,
        hostname=view.HOSTNAME,
        user_name=facts.user_name,
        uid=facts.uid,
        gid=facts.gid,
        home=facts.home,
        workspace=workspace,
        cwd=cwd if view.is_there(cwd, workspace, source) else workspace,
        command=command,
        environment=_environment(facts, found, settings, scan, sandbox_id),
        mounts=tuple(mounts),
        limits=settings.limits,
    )


def _etc(facts: Facts, found: image.Image, sandbox_id: str) -> list[Mount]:
    name, uid, gid = facts.user_name, facts.uid, facts.gid
    hosts = f"127.0.0.1 localhost {view.HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback {view.HOSTNAME}\n"
    texts = {
        "passwd": image.passwd(found.passwd, name=name, uid=uid, gid=gid, home=facts.home, shell=found.shell),
        "group": image.group(found.group, name=name, gid=gid),
        "hosts": hosts,
        "resolv.conf": view.RESOLV,
        "machine-id": f"{(sandbox_id.encode().hex() + '0' * 32)[:32]}\n",
    }
    return [Data(f"/etc/{name}", text.encode()) for name, text in texts.items()]


def _environment(
    facts: Facts, found: image.Image, settings: view.Settings, scan: Protection, sandbox_id: str
) -> tuple[tuple[str, str], ...]:
    tools = Toolchains(binds=(), path=found.path, variables=(), has_java=found.has_java)
    shell = found.shell or "/bin/sh"
    return environment.variables(
        facts=replace(facts, environ={**facts.environ, "SHELL": shell}),
        toolchains=tools,
        sandbox_id=sandbox_id,
        passed=settings.pass_environment,
        chosen=settings.environment,
        packages=view.package_environment(settings, scan),
        trust_store=found.has_java,
        ssh_agent=settings.ssh_agent,
    )
