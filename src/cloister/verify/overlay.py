"""What a verification adds to the user's plan: names of its own, their origin, and a canary credential.

Rule 1: it adds rules for names below `cloister-verify.test` (RFC 6761: nobody's) and takes none of the user's away, so
        nothing that the user's policy refuses is granted by it.
Rule 2: no I/O.
"""

from __future__ import annotations

from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.sandbox.plan import Plan

_ZONE = "cloister-verify.test"
NAMES = {which: f"{which}.{_ZONE}" for which in ("bound", "open", "paths", "plain", "evil")}
GRANTED = ("bound", "open", "paths", "plain")  # `evil` has an address, and no rule
VARIABLE = "CLOISTER_VERIFY_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where the names lead, and what goes with them. `secret_file` holds the canary credential's value."""

    https_port: int
    http_port: int
    ca_file: str
    secret_file: str
    placeholder: str


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
    return {
        **plan,
        "sandbox": {
            **sandbox, "environment": environment, "workspace": "bind", "detect_ports": False,
            "ports": [{**port, "auto": True} for port in sandbox.get("ports") or ()],
        },
        "services": [],
        "policy": {
            **policy,
            "grants": [*(_grant(which) for which in GRANTED), *policy["grants"]],
            "credentials": [*policy["credentials"], _credential(origins)],
        },
        "hosts": {**hosts, **{name: _pin(which, origins) for which, name in NAMES.items()}},
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


def _grant(which: str) -> Mapping[str, object]:
    limited = which == "paths"
    return {
        "id": f"verify:{which}",
        "reach": "exact",
        "name": NAMES[which],
        "ports": [80 if which == "plain" else 443],
        "transport": "web",
        "methods": ["GET"] if limited else [],
        "paths": ["/open/**"] if limited else [],
        "address_ranges": [],
        "note": "of `cloister verify`",
    }


def _credential(origins: Origins) -> Mapping[str, object]:
    return {
        "name": "cloister-verify",
        "source": f"file:{origins.secret_file}",
        "placeholder": origins.placeholder,
        "confirm": False,
        "repositories": [],
        "read_only": False,
        "bindings": [
            {
                "reach": "exact",
                "name": NAMES["bound"],
                "ports": [443],
                "paths": [],
                "inject": {"kind": "header", "name": "authorization", "template": "Bearer {}"},
            }
        ],
    }


def _pin(which: str, origins: Origins) -> Mapping[str, object]:
    return {"address": "127.0.0.1", "port": origins.http_port if which == "plain" else origins.https_port}
