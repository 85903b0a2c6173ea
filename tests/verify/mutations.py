"""The weakened sandboxes: each takes one protection away, in this process alone, and is then really run.

There is no switch for any of this in cloister itself: functions are replaced, and what is forked inherits that.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.config import directories
from cloister.credentials import inject
from cloister.credentials.redact import Redactor
from cloister.gateway import connection, daemon, judge, relay, resolver, strict
from cloister.gateway.http import body, h1_client, h1_server
from cloister.gateway.judge import Asked
from cloister.gateway.record import Record
from cloister.gateway.services import Services
from cloister.gateway.upstream import Dialler
from cloister.network import plumb
from cloister.policy import decide
from cloister.policy.decide import Splice
from cloister.policy.names import parse_host
from cloister.runtimes import bwrap_argv, embedded, mount_guard, seccomp
from cloister.sandbox import catalogue, quarantine, view
from cloister.sandbox.spec import Bind, Proc, Tmpfs
from cloister.session import live, prepare
from cloister.system import linux
from cloister.types import Allow, Host, HostPattern, Reach, Rule
from cloister.values import replace as replaced
from cloister.verify import overlay, passes
from cloister.verify.witnesses import Witnesses
from cloister.workspaces import gitsettings

Patch = pytest.MonkeyPatch
Weaken = Callable[[Patch, Path], None]
MUTATIONS: dict[str, Weaken] = {}


def mutation(name: str) -> Callable[[Weaken], Weaken]:
    def add(function: Weaken) -> Weaken:
        MUTATIONS[name] = function
        return function

    return add


def _rule(host: object, port: int = 443) -> Rule:
    return Rule(id="unsafe", pattern=HostPattern(reach=Reach.EXACT, name=str(host)), ports=frozenset({port}))


def _allow(_policy: object, asked: Any, *_: object) -> Allow:
    host = asked if isinstance(asked, Host) else asked.host
    return Allow(rule=_rule(host, getattr(asked, "port", 443)), reason="unsafe")


@mutation("allow-all")
def allow_all(patch: Patch, _: Path) -> None:
    """UnsafeAllowAll: every name is granted, on every port."""
    patch.setattr(resolver, "decide_name", _allow)
    patch.setattr(judge, "decide_connection", _allow)
    patch.setattr(judge, "decide_request", _allow)
    patch.setattr(judge, "treatment", lambda _policy, host, port: Splice(rule=_rule(host, port)))


@mutation("lenient-names")
def lenient_names(patch: Patch, scratch: Path) -> None:
    """Any text is a host's name, and addresses are not looked at."""
    allow_all(patch, scratch)
    patch.setattr(judge, "parse_host", lambda text: Host(text.strip("[]").replace("\0", "")))
    patch.setattr(strict, "authority", _split)
    patch.setattr(strict, "_TARGET", re.compile(rb"[^ ]+"))
    patch.setattr(strict, "_lines", _lines_with_anything(strict._lines))
    patch.setattr(Dialler, "_guarded", staticmethod(lambda _host, addresses, _rule: addresses))


def _split(untrusted: str, *, default_port: int | None) -> tuple[str, int]:
    host, _, port = untrusted.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else (untrusted, default_port or 443)


def _lines_with_anything(original: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def lenient(untrusted: bytes) -> Any:
        try:
            return original(untrusted)
        except Exception:
            first = untrusted.split(b"\r\n", 1)[0]
            target = first.split(b" ")[1]
            return first, ((b"host", target),)

    return lenient


@mutation("raw-tunnel")
def raw_tunnel(patch: Patch, _: Path) -> None:
    """What comes on port 443 is passed on, whatever it is: to the name that was granted, or to anybody."""

    async def tunnel(services: Any, wire: Any, asked: Asked) -> None:
        asked = replace(asked, host=asked.host or parse_host(overlay.NAMES["open"]), denial=None)
        await connection._tunnel_raw(
            services, wire, asked, Allow(rule=_rule(asked.host, asked.port), reason="unsafe")
        )

    patch.setattr(connection, "_tls", tunnel)


@mutation("follows-host-header")
def follows_host_header(patch: Patch, _: Path) -> None:
    """A request goes where its Host says, whatever the connection was made for, and whatever server name it had."""
    request, hello = judge.request, judge.hello

    def trusting(policy: Any, asked: Any, head: Any, form: Any, *, tls: bool) -> Any:
        if asked is not None and asked.host is not None:
            asked = replace(asked, host=parse_host(head.untrusted_authority.partition(":")[0]))
        return request(policy, asked, head, form, tls=tls)

    def nameless(policy: Any, asked: Any, found: Any) -> Any:
        return hello(policy, asked, replace(found, untrusted_server_name=str(asked.host)))

    patch.setattr(judge, "request", trusting)
    patch.setattr(judge, "hello", nameless)


@mutation("lenient-parser")
def lenient_parser(patch: Patch, _: Path) -> None:
    """A head is made to fit: of what is there twice the first counts, and odd bytes are dropped."""
    original = strict.request_head

    def lenient(untrusted: bytes) -> Any:
        first, *others = (
            untrusted.replace(b"\0", b"").replace(b"\r\n ", b" ").replace(b"\r\n", b"\n").split(b"\n")
        )
        kept: dict[bytes, bytes] = {}
        for line in others:
            name, colon, value = line.partition(b":")
            if colon:
                kept.setdefault(name.strip().lower(), value.strip())
        if b"transfer-encoding" in kept:
            kept.pop(b"content-length", None)
        lines = [first, *(name + b": " + value for name, value in kept.items())]
        return original(b"\r\n".join(lines) + b"\r\n\r\n")

    patch.setattr(strict, "request_head", lenient)


@mutation("unwatched")
def unwatched(patch: Patch, _: Path) -> None:
    """Nobody looks for placeholders in requests, nor for values in answers."""
    patch.setattr(daemon, "Services", lambda **fields: Services(**{**fields, "watched": {}}))
    patch.setattr(relay, "Redactor", lambda *_, **__: Redactor(()))


@mutation("keeps-client-header")
def keeps_client_header(patch: Patch, _: Path) -> None:
    """The credential is added to what the client has put there."""
    patch.setattr(
        inject,
        "_with_header",
        lambda request, name, value: replaced(request, headers=(*request.headers, (name, value))),
    )


@mutation("keeps-hop-headers")
def keeps_hop_headers(patch: Patch, _: Path) -> None:
    """The headers of the connection to the proxy go upstream."""
    fewer = body.HOP_BY_HOP - {b"proxy-authorization"}
    for module in (body, h1_client, h1_server):
        patch.setattr(module, "HOP_BY_HOP", fewer)


@mutation("value-inside")
def value_inside(patch: Patch, _: Path) -> None:
    """The credential's value is in the sandbox's environment."""
    adapted = overlay.adapted

    def leaking(plan: Any, origins: overlay.Origins) -> Any:
        found: Any = adapted(plan, origins)
        found["sandbox"]["environment"]["LEAK"] = Path(origins.secret_file).read_text()
        return found

    patch.setattr(overlay, "adapted", leaking)


@mutation("any-path")
def any_path(patch: Patch, _: Path) -> None:
    """Rules do not look at paths."""
    patch.setattr(decide, "_covers_path", lambda _rule, _path: True)


@mutation("any-method")
def any_method(patch: Patch, _: Path) -> None:
    """Rules do not look at methods."""
    patch.setattr(decide, "_covers_method", lambda _rule, _method: True)


@mutation("unprotected")
def unprotected(patch: Patch, _: Path) -> None:
    """Nothing of the workspace is protected or masked, and nobody puts back what is missing."""
    patch.setattr(view, "taken_away", lambda _scan: [])
    patch.setattr(mount_guard.Guard, "restore", lambda _guard: ())


@mutation("home-shown")
def home_shown(patch: Patch, _: Path) -> None:
    """A directory of the host's home beside the workspace is visible."""
    build = view.build

    def showing(**arguments: Any) -> Any:
        spec = build(**arguments)
        beside = spec.workspace.replace("-workspace", "-neighbour")
        return replaced(spec, mounts=(*spec.mounts, Bind(beside, beside)))

    patch.setattr(view, "build", showing)


@mutation("unfiltered")
def unfiltered(patch: Patch, scratch: Path) -> None:
    """A filter that allows every system call, and namespaces within namespaces."""
    path = scratch / "allow.bpf"
    path.write_bytes(_ALLOW)
    patch.setattr(seccomp, "filter_file", lambda *_: str(path))
    _without_option(patch, "--disable-userns")


_ALLOW = bytes.fromhex("060000000000ff7f")  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW


def _without_option(patch: Patch, name: str, *more: str) -> None:
    original = bwrap_argv.options
    patch.setattr(
        bwrap_argv,
        "options",
        lambda spec, **how: [one for one in original(spec, **how) if one not in (name, *more)],
    )


@mutation("owner-of-network")
def owner_of_network(patch: Patch, _: Path) -> None:
    """The agent stays in the user namespace that owns its network, with every capability there."""
    original = bwrap_argv.options

    def owning(spec: Any, **how: Any) -> list[str]:
        found = [one for one in original(spec, **how) if one not in ("--unshare-user", "--disable-userns")]
        for option in ("--uid", "--gid"):
            at = found.index(option)
            del found[at : at + 2]
        found[found.index("--cap-drop")] = "--cap-add"
        return found

    patch.setattr(bwrap_argv, "options", owning)
    patch.setattr(live, "is_confined", lambda _first, _init: True)


@mutation("host-processes")
def host_processes(patch: Patch, _: Path) -> None:
    """The host's /proc is visible."""
    original = bwrap_argv._mount

    def showing(mount: Any, *others: Any) -> Iterator[str]:
        if isinstance(mount, Proc):
            yield from ("--bind", "/proc", "/proc")
        else:
            yield from original(mount, *others)

    patch.setattr(bwrap_argv, "_mount", showing)


@mutation("inherited-descriptor")
def inherited_descriptor(patch: Patch, _: Path) -> None:
    """A descriptor of the session reaches the sandbox."""

    def careless(_keep: set[int]) -> None:
        os.dup2(os.open("/etc/hostname", os.O_RDONLY), 77)

    patch.setattr(embedded, "_close_all_but", careless)


@mutation("unlimited")
def unlimited(patch: Patch, _: Path) -> None:
    """Nothing limits processes."""
    original = bwrap_argv.argv
    patch.setattr(bwrap_argv, "argv", lambda spec, **how: original(spec, **{**how, "rlimits": False}))
    patch.setattr(live, "_limit", lambda _start, _sandbox: None)


@mutation("exec-unfiltered")
def exec_unfiltered(patch: Patch, _: Path) -> None:
    """A process that enters later gets no filter."""
    patch.setattr(linux, "set_seccomp_filter", lambda _filter: None)


@mutation("git-as-is")
def git_as_is(patch: Patch, _: Path) -> None:
    """The host's git reads a repository's own configuration, and nothing of it is turned off."""
    patch.setattr(gitsettings, "configuration", lambda text, **_: text)
    patch.setattr(gitsettings, "FORCED", "")


@mutation("smuggled-options")
def smuggled_options(patch: Patch, _: Path) -> None:
    """A command's words stand where bubblewrap looks for its own options."""
    patch.setattr(
        bwrap_argv,
        "argv",
        lambda spec, *, bwrap, descriptors, rlimits: [
            bwrap, "--args", str(descriptors.options), *spec.command,
        ],
    )  # fmt: skip


@mutation("any-name")
def any_name(patch: Patch, _: Path) -> None:
    """Any text is a sandbox's name, and any last component of a path that of a project's state."""
    patch.setattr(catalogue, "check_name", lambda text: text)
    patch.setattr(directories, "project_id", os.path.basename)


@mutation("unswept")
def unswept(patch: Patch, _: Path) -> None:
    """Nobody looks at the end of a session for what was planted."""
    patch.setattr(quarantine, "sweep", lambda *_: ())


@mutation("boundless")
def boundless(patch: Patch, _: Path) -> None:
    """Files in memory may take half of the host's memory, in every place."""
    patch.setattr(view, "in_memory", lambda target, _limits, mode, **_how: Tmpfs(target, None, mode))


@mutation("forgetful")
def forgetful(patch: Patch, _: Path) -> None:
    """No command looks for what killed sessions have left."""
    patch.setattr(prepare, "clean_up", lambda _state, _tell: None)


@mutation("silent")
def silent(patch: Patch, _: Path) -> None:
    """Refusals are not written down."""
    patch.setattr(Record, "refusal", lambda *_, **__: None)


@mutation("forwarded-port")
def forwarded_port(patch: Patch, _: Path) -> None:
    """Ports of the host's loopback are forwarded into the sandbox, at every address."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ports: list[int] = []
    pass_sockets = plumb.pass_sockets
    _learn(patch, ports)

    def leaking(bound: Any, gateway: socket.socket) -> None:
        pass_sockets(bound, gateway)
        tcp, udp = ports
        with (
            socket.create_server(("0.0.0.0", tcp)) as listener,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            datagrams.bind(("0.0.0.0", udp))
            socket.send_fds(theirs, [b"x"], [listener.fileno(), datagrams.fileno()])

    def forward() -> None:
        with suppress(OSError):
            _, (tcp, udp), _, _ = socket.recv_fds(ours, 1, 2)
            threading.Thread(target=_datagrams, args=(socket.socket(fileno=udp),), daemon=True).start()
            listener = socket.socket(fileno=tcp)
            while True:
                connection_, _ = listener.accept()
                port = connection_.getsockname()[1]
                with connection_, socket.create_connection(("127.0.0.1", port)) as host:
                    host.sendall(connection_.recv(4096))

    patch.setattr(plumb, "pass_sockets", leaking)
    threading.Thread(target=forward, daemon=True).start()


def _datagrams(sock: socket.socket) -> None:
    with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as host:
        while True:
            data, sender = sock.recvfrom(4096)
            host.sendto(data, ("127.0.0.1", sock.getsockname()[1]))
            sock.sendto(b"x", sender)


def _learn(patch: Patch, ports: list[int]) -> None:
    """Learn the witnesses' ports before anything is forked."""

    def known() -> Any:
        found = Witnesses()
        ports[:] = [found.tcp.getsockname()[1], found.udp.getsockname()[1]]
        return found

    patch.setattr(passes, "Witnesses", known)
