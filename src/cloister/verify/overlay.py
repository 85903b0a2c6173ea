"""What a verification adds to the user's plan: names of its own, their origin, and canary credentials.

Rule 1: it adds rules for names below `cloister-verify.test` (RFC 6761: nobody's) and takes none of the user's away, so
        nothing that the user's policy refuses is granted by it.
Rule 2: no I/O.
"""

from __future__ import annotations

from cloister.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.sandbox.plan import Plan

_ZONE = "cloister-verify.test"
# Names whose origin has a certificate that does not hold; the credential is bound to them too.
IMPOSTORS = ("misnamed", "expired", "selfsigned")
# Names without a fixed place: what they resolve to is in ANSWERS.
RESOLVED = ("private", "mixed", "rebound")
GRANTED = ("bound", "open", "paths", "judged", "plain", "odd", *IMPOSTORS, *RESOLVED)
NAMES = {which: f"{which}.{_ZONE}" for which in (*GRANTED, "evil")}  # `evil` has an address, and no rule
VARIABLE = "CLOISTER_VERIFY_TOKEN"

OTHER_LOOPBACK = "127.0.0.3"  # where the origin listens too, and no rule lets anybody go
# What the names resolve to, one answer for each time they are asked for.
ANSWERS: Mapping[str, Sequence[Sequence[str]]] = {
    "private": [
        ["127.0.0.1"], ["10.0.0.1"], ["192.168.0.1"], ["169.254.169.254"], ["100.100.100.200"], ["0.0.0.0"],  # noqa: S104
        ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["fd00:ec2::254"], ["fe80::1"],
    ],
    "mixed": [["127.0.0.2", "127.0.0.1"]],  # nobody listens at the first, which is allowed
    "rebound": [["127.0.0.1"], [OTHER_LOOPBACK]],
}  # fmt: skip
_RANGES = {"mixed": ["127.0.0.2/32"], "rebound": ["127.0.0.1/32"]}
_METHODS = {"paths": ["GET"], "judged": ["GET", "POST"]}
_PATHS = {"paths": ["/open/**"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where the names lead, and what goes with them. `secret_file` holds the canary credential's value.

    `odd_files` are files of credentials that are no good, by the path of the requests that would get them.
    """

    https_port: int
    http_port: int
    ca_file: str
    secret_file: str
    placeholder: str
    odd_files: Mapping[str, str] = field(default_factory=dict)


def adapted(plan: Plan, origins: Origins) -> Plan:
    """The plan with the overlay, without what `left_out` names. Published ports are at the next free one, if in use."""
    sandbox, policy, hosts, roots = plan["sandbox"], plan["policy"], plan["hosts"], plan["upstream_ca"]
    if not (
        isinstance(sandbox, dict)
        and isinstance(policy, dict)
        and isinstance(hosts, dict)
        and isinstance(roots, list)
    ):
        raise TypeError("the plan has no sandbox, policy, hosts or upstream_ca")
    environment = {**(sandbox.get("environment") or {}), VARIABLE: origins.placeholder}
    pinned = {name: _pin(which, origins) for which, name in NAMES.items() if which not in RESOLVED}
    return {
        **plan,
        "sandbox": {
            **sandbox, "environment": environment, "workspace": "bind", "detect_ports": False,
            "ports": [{**port, "auto": True} for port in sandbox.get("ports") or ()],
        },
        "services": [],
        "policy": {
            **policy,
            "grants": [*(_grant(which, origins) for which in GRANTED), *policy["grants"]],
            "credentials": [*policy["credentials"], _credential(origins), *_odd_credentials(origins)],
        },
        "hosts": {**hosts, **pinned},
        "answers": {NAMES[which]: ANSWERS[which] for which in RESOLVED},
        "upstream_ca": [*roots, origins.ca_file],
    }  # fmt: skip


def left_out(plan: Plan) -> tuple[str, ...]:
    """Which of the user's settings do not count in a verification, and why."""
    sandbox, services = plan.get("sandbox"), plan.get("services")
    settings = sandbox if isinstance(sandbox, dict) else {}
    found = []
    if isinstance(services, list) and services:
        names = ", ".join(str(one.get("name")) for one in services)
        found.append(f"services ({names}): they would be started a second time, with data of their own")
    if settings.get("workspace", "bind") != "bind":
        kind = settings["workspace"]
        found.append(
            f'workspace = "{kind}": attacked is one that is shown itself, where the most is to be held'
        )
    if settings.get("detect_ports"):
        found.append("ports of frameworks: the verification's own workspace has none of them")
    return tuple(found)


def _grant(which: str, origins: Origins) -> Mapping[str, object]:
    ports = {"plain": 80, **dict.fromkeys(RESOLVED, origins.https_port)}
    return {
        "id": f"verify:{which}",
        "reach": "exact",
        "name": NAMES[which],
        "ports": [ports.get(which, 443)],
        "transport": "web",
        "methods": _METHODS.get(which, []),
        "paths": _PATHS.get(which, []),
        "address_ranges": _RANGES.get(which, []),
        "note": "of `cloister verify`",
    }


def _credential(origins: Origins) -> Mapping[str, object]:
    bindings = [_binding(which, []) for which in ("bound", *IMPOSTORS)]
    return _of_file("cloister-verify", origins.secret_file, origins.placeholder, bindings)


def _odd_credentials(origins: Origins) -> list[Mapping[str, object]]:
    """One for each file that is no good, on the paths below its name."""
    return [
        _of_file(
            f"cloister-verify-{kind}",
            path,
            _placeholder_of(kind, origins),
            [_binding("odd", [f"/{kind}/**"])],
        )
        for kind, path in origins.odd_files.items()
    ]


def _placeholder_of(kind: str, origins: Origins) -> str:
    """One that does not hold the other: it must be told apart from it."""
    return f"cvo-{kind}-{origins.placeholder.rpartition('-')[2]}"


def _of_file(
    name: str, path: str, placeholder: str, bindings: Sequence[Mapping[str, object]]
) -> Mapping[str, object]:
    return {
        "name": name,
        "source": f"file:{path}",
        "placeholder": placeholder,
        "confirm": False,
        "repositories": [],
        "read_only": False,
        "bindings": bindings,
    }


def _binding(which: str, paths: Sequence[str]) -> Mapping[str, object]:
    return {
        "reach": "exact",
        "name": NAMES[which],
        "ports": [443],
        "paths": paths,
        "inject": {"kind": "header", "name": "authorization", "template": "Bearer {}"},
    }


def _pin(which: str, origins: Origins) -> Mapping[str, object]:
    return {"address": "127.0.0.1", "port": origins.http_port if which == "plain" else origins.https_port}
