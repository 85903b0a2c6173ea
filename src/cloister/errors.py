"""Errors that reach a person, one class per reaction of the caller, each with its exit code.

Rule 1: a `CloisterError` says what happened (`brief`), where and what was found (`details`), and what to
type next (`resolution`).
Rule 2: the exit code says whose failure it is. A failing command inside the sandbox is a result, not an error.
Rule 3: no message carries a secret's value.
"""

from __future__ import annotations


class CloisterError(Exception):
    """Something that a person must know. `brief` is one sentence without a final newline."""

    exit_code = 125  # as `docker run` and `env`: the fault is ours, not the command's

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        lines = [self.brief]
        if self.details:
            lines += [f"  {line}" for line in self.details.splitlines()]
        if self.resolution:
            lines.append(f"  → {self.resolution}")
        return "\n".join(lines)


class UsageError(CloisterError):
    """The command line is wrong: unknown command or option, missing argument."""

    exit_code = 2


class ConfigurationError(CloisterError):
    """A configuration file is wrong; `brief` starts with `file:line:`."""


class UntrustedConfigurationError(CloisterError):
    """The project's configuration is not adopted, or has changed since it was."""


class WorkspaceError(CloisterError):
    """The workspace is missing, or is a directory that must never be one (`/`, the home …)."""


class RepositoryError(CloisterError):
    """A git repository is none, or not of a shape that cloister works with, or git could not do what was asked."""


class HostError(CloisterError):
    """This host lacks something that the sandbox needs; `cloister doctor` tells more."""


class GatewayError(CloisterError):
    """The gateway died or could not start; the sandbox has been stopped."""


class CredentialError(CloisterError):
    """A credential's value cannot be had, or does not fit where it must stand. Names it, never shows the value."""


class UntrustedInputError(Exception):
    """Bytes from inside the sandbox, or from an upstream, that a parser refuses.

    The only exception that a parser of `untrusted_*` raises. The message goes to the audit log, so it
    describes the fault and never quotes the input at length.
    """
