"""Remove what sandboxes leave: at the end of each, and for those whose session was killed.

Rule 1: idempotent, and safe to be killed itself: the record goes last.
Rule 2: a killed session's sandbox is dead (PR_SET_PDEATHSIG), but its gateway may still be writing its last lines, and
        nobody has looked at what the agent left in the workspace: both are done here, by the next command.
"""

from __future__ import annotations

import os

from cloister.audit.log import AuditLog, Event
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import WorkspaceError
from cloister.sandbox import entry, placeholders, registry, scan, tool_repositories
from cloister.system import cgroup, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def sweep_all(state_directory: str, tell: Callable[[str], None]) -> None:
    """Clean up after every sandbox, of whatever project, whose session is dead."""
    for runs in directories.all_runs(state_directory):
        for record in registry.records(runs):
            if not registry.alive(record.session):
                project = Project(workspace=record.workspace, state=os.path.dirname(runs))
                sweep(project, tell)
                if project.throwaway:
                    files.remove_tree(project.state)
                break


def sweep(project: Project, tell: Callable[[str], None]) -> None:
    """Clean up after every sandbox of `project` whose session is dead."""
    for record in registry.records(project.runs):
        if registry.alive(record.session):
            continue
        # Two commands may start at once: the second finds the work done.
        with files.locked(f"{project.state}/.lock"):
            if not registry.exists(project.runs, record.sandbox_id):
                continue
            for process in record.others:
                registry.kill(process)
            tell(f"the session of sandbox {record.sandbox_id!r} had been killed; cleaning up after it")
            AuditLog(project.audit, record.sandbox_id).write(
                Event(kind="end", reason="the session was killed", text="cleaned up by a later command")
            )
            finish(project, record, tell)


def finish(
    project: Project,
    record: registry.Record,
    tell: Callable[[str], None],
    before_forgetting: Callable[[], None] = lambda: None,
) -> None:
    """Remove everything of a sandbox that no longer runs; its record last.

    `before_forgetting` waits for what ends meanwhile (the gateway).
    """
    if (
        record.container is not None
    ):  # first of all: what protects the workspace stays as long as the agent lives
        from cloister.session import container  # off the path of the embedded runtime

        container.remove(record, tell)
    if record.cgroup:
        cgroup.remove(record.cgroup)
    placeholders.release(project.shared, record.sandbox_id)
    if record.launched and not project.throwaway:
        _quarantine(project, record, tell)
    before_forgetting()
    if record.container is not None and record.container.gateway:  # it has written its last lines
        from cloister.session import container

        container.remove_gateway(record, tell)
    _release_services(project, record, tell)
    if record.public_directory:
        _remove_flat(record.public_directory)
        files.remove(f"{record.public_directory}.sock")
        files.remove(f"{record.public_directory}{entry.SUFFIX}")
    registry.remove(project.runs, record.sandbox_id)


def _release_services(project: Project, record: registry.Record, tell: Callable[[str], None]) -> None:
    """Stop the services that no sandbox uses any more."""
    if os.path.isdir(os.path.join(project.shared, "services")):
        from cloister.services import stop  # only where there have been some

        stop.release(project.shared, record.sandbox_id, os.environ, tell)


def _quarantine(project: Project, record: registry.Record, tell: Callable[[str], None]) -> None:
    """Take away what the agent made that the host would execute (sandbox/quarantine.py)."""
    if not os.path.isdir(project.workspace):
        return
    before = frozenset(record.nested)
    try:
        # The cheap question first, with what is imported already: is there anything new at all?
        now = scan.scan(project.workspace, home=project.home)
        if now.nested <= before and not now.notes and not tool_repositories.hold_repository(now.unwalked):
            return
    except WorkspaceError:
        pass  # a protected name has become a link: the sweep looks at it
    from cloister.sandbox import quarantine  # off the path of a session that planted nothing

    audit = AuditLog(project.audit, record.sandbox_id)
    moved = quarantine.sweep(project.workspace, before, os.path.join(project.quarantine, record.sandbox_id))
    for one in moved:
        audit.write(Event(kind="quarantine", reason=one.reason, text=one.path))
        if one.kept:
            tell(f"quarantined {one.path!r}: {one.reason}; kept in {one.kept!r}")
        else:
            tell(f"NOT quarantined, look at it before you use it: {one.path!r}: {one.reason}")


def _remove_flat(directory: str) -> None:
    try:
        for name in os.listdir(directory):
            files.remove(os.path.join(directory, name))
        os.rmdir(directory)
    except FileNotFoundError:
        return
