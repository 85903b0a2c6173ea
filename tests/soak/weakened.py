"""Builds of cloister that are weakened in one place: a soak of each must find it.

There is no switch for any of this in cloister itself. `sitecustomize`, on the path of the host's Python alone, replaces a
function as soon as its module has been loaded, in the session's process and in the gateway's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HOOK = '''
import importlib.util
import sys


class After:
    """Changes one module once it has been executed."""

    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            weaken(module)

        spec.loader.exec_module = exec_module
        return spec


def weaken(module):
{body}

sys.meta_path.insert(0, After())
'''


@dataclass(frozen=True, kw_only=True)
class Weakening:
    """`body` changes `module`; `sentence` is part of what must be found; `trials` suffice to find it."""

    module: str
    body: str
    sentence: str
    trials: tuple[str, ...]

    def install(self, directory: Path) -> None:
        """As `sitecustomize` of whoever has `directory` in PYTHONPATH."""
        body = "\n".join(f"    {line}" for line in self.body.strip().splitlines())
        (directory / "sitecustomize.py").write_text(_HOOK.format(module=self.module, body=body))


def _writing_only(condition: str) -> str:
    """A body for `cloister.gateway.record`: of the audit log's lines, those alone for which this holds."""
    return f"""
event = module.Record.event
def forgetful(self, line):
    if {condition}:
        event(self, line)
module.Record.event = forgetful
"""


WEAKENINGS = {
    "a descriptor that is not closed": Weakening(
        module="cloister.gateway.accept",
        body="""
import os
handle = module.Acceptor._handle
async def leaking(self, sock, handler):
    for _ in range(8):
        os.dup(sock.fileno())
    await handle(self, sock, handler)
module.Acceptor._handle = leaking
""",
        sentence="the gateway's descriptors grew",
        trials=("echo", "burst", "plain", "short"),
    ),
    "a list that grows": Weakening(
        module="cloister.gateway.record",
        body="""
kept, event = [], module.Record.event
def growing(self, line):
    kept.append(b"x" * (1 << 20))
    event(self, line)
module.Record.event = growing
""",
        sentence="the gateway's memory grew",
        trials=("echo", "burst", "plain"),
    ),
    "a child that is not waited for": Weakening(
        module="cloister.gateway.published",
        body="""
import subprocess
serve = module.Published._serve
async def forking(self, *arguments):
    subprocess.Popen(["sleep", "900"])
    await serve(self, *arguments)
module.Published._serve = forking
""",
        sentence="threads or children grew",
        trials=("plain",),
    ),
    "requests without a line": Weakening(
        module="cloister.gateway.record",
        body=_writing_only('line.kind != "request" or "7" not in line.path'),
        sentence="a request that has no line",
        trials=("burst",),
    ),
    "refusals without a line": Weakening(
        module="cloister.gateway.record",
        body="module.Record.refusal = lambda self, denial, **about: None",
        sentence="was refused without a line",
        trials=("refused-method", "misplaced"),
    ),
    "tunnels without a line": Weakening(
        module="cloister.gateway.record",
        body=_writing_only('line.kind != "connect"'),
        sentence="times in project-",
        trials=("line",),
    ),
    "answers that are not redacted": Weakening(
        module="cloister.gateway.vault",
        body="module.Vault.known = lambda self: ()",
        sentence="a credential is in /",
        trials=("echo",),
    ),
    "placeholders that go anywhere": Weakening(
        module="cloister.gateway.use",
        body="module.misplaced = lambda *about, **more: None",
        sentence="an origin saw what was to be refused",
        trials=("misplaced", "echo"),
    ),
    "records that stay": Weakening(
        module="cloister.sandbox.registry",
        body="module.remove = lambda directory, sandbox_id: None",
        sentence="record /",
        trials=("plain", "echo"),
    ),
}
