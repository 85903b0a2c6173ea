"""The profiles: how much is reachable without being spelled out.

Rule 1: a profile names kinds of presets, never hosts.
Rule 2: what the configuration declares (allow, presets, rules that allow) counts only where `declared` says
        so: `--profile offline` means offline. Bans count always, and so does `--allow` on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a profile opens. `unsafe_any` opens every public name on ports 80 and 443."""

    description: str
    kinds: frozenset[str] = frozenset()
    declared: bool = False
    unsafe_any: bool = False


PROFILES: dict[str, Profile] = {
    "offline": Profile(description="nothing"),
    "registries": Profile(description="package registries", kinds=frozenset({"registry"})),
    "agent": Profile(
        description="package registries, model APIs, and what the configuration declares",
        kinds=frozenset({"registry", "model"}),
        declared=True,
    ),
    "full": Profile(
        description="every public name on ports 80 and 443, through the gateway, never private addresses",
        declared=True,
        unsafe_any=True,
    ),
}
DEFAULT_PROFILE = "agent"
