"""Compile the configuration into the plan that the hot path, the gateway and the plumber read.

Rule 1: the plan holds everything that they need; nothing of it is judged again by them.
Rule 2: "sources" lists every file that was read or found missing, so that the stored plan counts only as
        long as all of them hold the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloister import PLAN_FORMAT, __version__
from cloister.config import directories, trust
from cloister.config.collisions import check_exposed
from cloister.config.credentials import Found, credentials_of
from cloister.config.files import read_own_configuration
from cloister.config.git import forges_of, signing_of
from cloister.config.load import Level, load
from cloister.config.packages import packages_of
from cloister.config.pins import pinned_hosts, upstream_cas
from cloister.config.ports import published_of
from cloister.config.preset import load_presets
from cloister.config.rules import policy_of
from cloister.config.services import services_of
from cloister.config.settings import Overrides, Settings, merged
from cloister.config.shown import together
from cloister.policy.codec import policy_document
from cloister.types import DEFAULT_WEB_PORTS, Policy, Reach

__all__ = ["Overrides", "compile_plan", "compile_project"]

Plan = dict[str, object]


def compile_project(workspace: str, environ: Mapping[str, str], overrides: Overrides) -> Plan:
    """Read the user's file and the project's adopted one; the plan of docs/architecture.md, ready for JSON.

    ConfigurationError, UntrustedConfigurationError or UsageError (for `overrides`) if something is wrong.
    """
    project = directories.project(workspace, environ)
    user_path = directories.user_file(environ)
    user_text = read_own_configuration(user_path)
    sources = [{"path": user_path, "text": user_text}]
    project_text = None
    if not overrides.no_project_file:
        project_text, adopted_text = trust.texts(project)
        trust.check(project, project_text, adopted_text)
        sources += [
            {"path": project.file, "text": project_text},
            {"path": project.adopted, "text": adopted_text},
        ]
    plan = compile_plan(
        user=(user_path, user_text),
        project=(project.file, project_text),
        overrides=overrides,
        home=directories.home(environ),
    )
    return {**plan, "sources": sources}


def compile_plan(
    *, user: tuple[str, str | None], project: tuple[str, str | None], overrides: Overrides, home: str
) -> Plan:
    """The plan of two texts, given as (path, text or None), without "sources". Reads nothing but CA files.

    Of the paths in `read_only` it asks whether they exist.
    """
    levels = ((Level.USER, user), (Level.PROJECT, project))
    loaded = [load(path, text, level) for level, (path, text) in levels if text is not None]
    settings = merged(loaded, overrides, home)
    presets = load_presets()
    found = credentials_of(loaded, presets, seed=project[0])
    check_exposed(found, settings, home)
    pinned = pinned_hosts(loaded)
    services = services_of(loaded, settings.profile, pinned)
    policy = policy_of(loaded, overrides, settings.profile, presets, found)
    policy = replace(policy, grants=(*policy.grants, *(service.rule() for service in services)))
    signing = signing_of(loaded)
    return {
        "format": PLAN_FORMAT,
        "cloister": __version__,
        "profile": settings.profile,
        "sources": [],
        "sandbox": {
            **settings.document(),
            **published_of(loaded, overrides).document(),
            "environment": _variables(settings, found),
            "files": _files(found, home, workspace=os.path.dirname(project[0])),
            "ssh_to_https": forges_of(loaded, found, presets, policy, signing),
        },
        "ssh": signing.document(),
        "packages": packages_of(loaded).document(),
        "policy": policy_document(policy),
        "hosts": pinned,
        "services": [service.document() for service in services],
        "upstream_ca": upstream_cas(loaded, home),
        "bound": _bound(policy),
    }


def _variables(settings: Settings, found: Sequence[Found]) -> dict[str, str]:
    """The variables that the sandbox gets. What the user sets wins over a placeholder."""
    variables: dict[str, str] = {}
    for one in found:
        variables |= one.environment
    return {**variables, **dict(settings.environment)}


def _files(found: Sequence[Found], home: str, *, workspace: str) -> dict[str, str]:
    """The files that lie in the sandbox's home. They are mounted there, so never within the workspace."""
    for one in found:
        for path in one.files:
            if workspace and f"{home}/{path}".startswith(f"{workspace}/"):
                raise one.place.item("files").error(
                    "this file lies in the workspace",
                    expected="a file of the home, beside it",
                    found=f"~/{path}",
                )
    return together(one.files for one in found)


def _bound(policy: Policy) -> list[dict[str, object]]:
    """Exact granted names with ports other than 80 and 443, in the order of the grants, each once."""
    ports: dict[str, frozenset[int]] = {}
    for grant in policy.grants:
        extra = grant.ports - DEFAULT_WEB_PORTS
        if grant.pattern.reach is Reach.EXACT and extra:
            name = grant.pattern.name
            ports[name] = ports.get(name, frozenset()) | extra
    return [{"host": name, "ports": sorted(numbers)} for name, numbers in ports.items()]
