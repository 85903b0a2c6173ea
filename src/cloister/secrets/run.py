"""Run a program that prints a secret.

Rule 1: it gets the user's environment (its sockets, its configuration), but nothing of it that names a place where the
        sandbox can write, and on PATH nothing relative: a virtual environment of the workspace comes first there, and
        an agent may put an `op` into it; PYTHONPATH would let it into `aws`.
Rule 2: it reads nothing, has no terminal, and works in "/": a program must not find configuration in the workspace.
Rule 3: what it prints is the secret: never shown. Of its errors the last line is, with what is known masked.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from cloister.secret import Secret
from cloister.secrets.file import located
from cloister.secrets.source import VALUE_LIMIT_BYTES, Context, Source, failed
from cloister.system import proc

_WORDS_LIMIT_CHARACTERS = 200
_LEAST_MASKED_BYTES = 4
_SECRET_NAME = re.compile(r"TOKEN|SECRET|KEY|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


def output(
    argv: Sequence[str],
    source: Source,
    context: Context,
    *,
    extra: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    known: Sequence[Secret] = (),
) -> bytes:
    """What a program prints to its standard output. CredentialError if it cannot be had.

    `extra` is added to its environment, `without` taken from it.
    """
    environment = {**_environment(context, without), **(extra or {})}
    program = _program(argv, environment["PATH"], source, context)
    try:
        done = proc.capture(
            [program, *argv[1:]],
            environment=environment,
            timeout_s=context.left_s(),
            limit_bytes=VALUE_LIMIT_BYTES,
            descriptors=descriptors,
            running=context.running,
        )
    except TimeoutError:
        reason = f'the program "{argv[0]}" did not end within {context.deadline_s:g} s, and was killed'
        raise failed(source, context, reason) from None
    except proc.OutputLimitError:
        reason = f'the program "{argv[0]}" printed more than {VALUE_LIMIT_BYTES >> 10} KiB, and was killed'
        raise failed(source, context, reason) from None
    except OSError as error:
        reason = f'the program "{argv[0]}" cannot be started: {error.strerror}'
        raise failed(source, context, reason) from None
    if done.code != 0:
        how = f"exit code {done.code}" if done.code > 0 else f"signal {-done.code}"
        said = _last_words(done, [*known, *context.known()], context.environ)
        raise failed(source, context, f'the program "{argv[0]}" failed ({how})', said=said)
    return done.output


def _environment(context: Context, without: Sequence[str]) -> dict[str, str]:
    kept = {
        name: text
        for name, text in context.environ.items()
        if name not in without and not _names_untrusted(text, context)
    }
    return kept | {"PATH": _path(context)}


def _path(context: Context) -> str:
    """PATH without what the sandbox can write, and without what depends on the directory."""
    entries = context.environ.get("PATH", proc.PATH).split(os.pathsep)
    kept = [entry for entry in entries if os.path.isabs(entry) and not context.is_untrusted(entry)]
    return os.pathsep.join(kept) or proc.PATH


def _names_untrusted(text: str, context: Context) -> bool:
    """Whether a variable names a place that the sandbox can write, as a path, in a list or within options."""
    if any(f"{root}/" in text or text.endswith(root) for root in context.untrusted):
        return True
    return any(part.startswith("/") and context.is_untrusted(part) for part in text.split(os.pathsep))


def _program(argv: Sequence[str], path: str, source: Source, context: Context) -> str:
    """The program's own path. CredentialError if there is none, or if the sandbox has a hand in what would run."""
    name = argv[0]
    found = shutil.which(located(name, context), path=path)
    if found is None:
        what = "does not exist, or cannot be executed" if "/" in name else "is not on PATH"
        raise failed(source, context, f'the program "{name}" {what}')
    if context.is_untrusted(found):
        raise failed(source, context, f'the program "{name}" lies where the sandbox can write')
    for word in argv[1:]:
        place = word.rpartition("=")[2]
        if place.startswith("/") and os.path.isfile(place) and context.is_untrusted(place):
            raise failed(source, context, f'the program "{name}" is given a file that the sandbox can write')
    return found


def _last_words(done: proc.Finished, known: Sequence[Secret], environ: Mapping[str, str]) -> str:
    """The last line of its standard error: programs say there why they failed. Secrets in it are masked."""
    lines = [line for line in done.errors.splitlines() if line.strip()]
    if not lines:
        return ""
    texts = [secret.reveal() for secret in known]
    texts += [os.fsencode(text) for name, text in environ.items() if _SECRET_NAME.search(name)]
    texts += done.output.split()  # what it printed may have been the secret, and its error quote it
    last = lines[-1]
    for text in sorted(texts, key=len, reverse=True):
        if len(text) >= _LEAST_MASKED_BYTES:
            last = last.replace(text, b"***")
    said = last.decode(errors="replace").strip()
    shown = "".join(char if char.isprintable() else "?" for char in said)
    return f"it said: {shown[:_WORDS_LIMIT_CHARACTERS]}"
