"""What a task says of its sandbox, as the options of `cloister up`. A judge: no I/O."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class CloisterConfig(BaseModel):
    """A task's sandbox; each field is an option of `cloister up`.

    sandbox=SandboxEnvironmentSpec("cloister", CloisterConfig(profile="registries"))
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: str | None = None
    image: str | None = None
    workspace: str = (
        "volume"  # nothing of the host is mounted, so nothing of it needs protection: `git init` works
    )
    profile: str | None = "offline"
    allow: tuple[str, ...] = ()
    memory: str | None = None
    cpus: float | None = None
    pids: int | None = None


# A task's cloister.toml says all of it.
OF_THE_FILE = CloisterConfig(profile=None)


def arguments(config: CloisterConfig) -> list[str]:
    """Its options."""
    named = {
        "--runtime": config.runtime,
        "--image": config.image,
        "--workspace-kind": config.workspace,
        "--profile": config.profile,
        "--memory": config.memory,
        "--cpus": config.cpus,
        "--pids": config.pids,
    }
    found = [f"{option}={value}" for option, value in named.items() if value is not None]
    return [*found, *(f"--allow={host}" for host in config.allow)]
