"""The services of a start: made to run before the sandbox is, and let go when it has ended.

Imported only where services are declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloister.errors import CloisterError
from cloister.policy.service import parse_document
from cloister.services import repository
from cloister.services.start import Start, ensure
from cloister.services.users import Users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.config.directories import Project
    from cloister.sandbox.plan import Plan
    from cloister.sandbox.registry import Record


def with_places(
    plan: Plan,
    project: Project,
    record: Record,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
    *,
    untrusted: tuple[str, ...],
) -> Plan:
    """The plan with the places of its services among its "hosts", once they are ready. HostError."""
    try:
        declared = parse_document(plan["services"])
    except (ValueError, KeyError, TypeError) as error:
        raise CloisterError(
            "the stored plan is damaged", details=str(error), resolution="run: cloister policy show"
        ) from None
    sandbox, further_roots = plan.get("sandbox"), plan.get("upstream_ca")
    start = Start(
        users=Users.of(project.shared, repository.key(project.workspace)),
        environ=environ,
        untrusted=untrusted,
        tell=tell,
        upstream_ca=tuple(map(str, further_roots)) if isinstance(further_roots, list) else (),
        runtime=str(sandbox.get("runtime")) if isinstance(sandbox, dict) else None,
    )
    found = ensure(declared, start, sandbox_id=record.sandbox_id, session=record.session)
    hosts = plan.get("hosts")
    return {**plan, "hosts": {**(hosts if isinstance(hosts, dict) else {}), **found}}
