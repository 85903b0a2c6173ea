"""The *runtime image*: what our own containers run, made of this host's Python and imported into an engine once.

It holds an interpreter, the modules and shared libraries that the holder (network/holder.py) was seen to load, and
nothing else: no shell, no package manager, no other program. So the agent's image may be any, with nothing of ours.

Rule 1: found by trial: a child of this interpreter loads the program and tells which files that took.
Rule 2: files keep their paths; modules become sourceless .pyc, which load without a writable cache.
Rule 3: the tag names what went in (interpreter, our modules), so a tag that an engine has is the right image.
"""

from __future__ import annotations

import json
import os
import struct
import sys

from cloister.config.directories import digest
from cloister.errors import HostError
from cloister.network import holder
from cloister.system import files, proc
from cloister.values import dataclass

REPOSITORY = "cloister-runtime"
FORMAT = 1  # raise when what this module makes changes
PACKAGE = "/cloister"  # where our modules are in the image
LABEL = "dev.cloister.runtime"
CODE = f"import sys; sys.path.insert(0, {PACKAGE!r}); from cloister.network import holder; holder.main()"
_TIMEOUT_S = 30.0
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What the holder imports of ours: `test_oci_runtime.py` compares.
OWN_MODULES = (
    "__init__.py", "lean.py", "network/__init__.py", "network/enter.py", "network/forward.py",
    "network/holder.py", "network/plumb.py", "network/standin.py", "system/__init__.py", "system/linux.py",
    "system/netlink.py",
)  # fmt: skip
_PROBE = """\
import sys
sys.path.insert(0, sys.argv[1])
from cloister.network import holder
found = {name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
mapped = sorted({line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line})
import json
print(json.dumps({"modules": found, "mapped": mapped, "prefix": [sys.prefix, sys.exec_prefix],
    "library": sys.platlibdir, "version": "%d.%d" % sys.version_info[:2]}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The image's tag, and the program and environment that run the holder in it."""

    tag: str
    python: str
    library_path: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The holder's command line. No site, no environment, no user directory."""
        return (self.python, "-I", "-S", "-c", CODE)


def runtime(state_directory: str) -> Runtime:
    """Name the image of this interpreter and this cloister. Its library path is known once it has been made here."""
    python = os.path.realpath(sys.executable)
    key = _key(python)
    stored = files.read_text(f"{state_directory}/oci-runtime") or ""
    known, _, library_path = stored.partition("\n")
    if known != key or not library_path:
        library_path = ":".join(sorted({os.path.dirname(path) for path in _libraries(_look(python), python)}))
        files.make_private_directory(state_directory)
        files.write_atomic(f"{state_directory}/oci-runtime", f"{key}\n{library_path}".encode())
    return Runtime(tag=f"{REPOSITORY}:{key}", python=python, library_path=library_path)


def archive() -> bytes:
    """The image's root file system, as a tar."""
    python = os.path.realpath(sys.executable)
    found = _look(python)
    contents: dict[str, bytes | str] = {python: _read(python)}  # path → content, or the target of a link
    for path in _libraries(found, python):
        contents |= _library(path)
    loader = interpreter(contents[python])  # type: ignore[arg-type]  # the program's bytes
    if loader:
        contents[loader] = _read(os.path.realpath(loader))
    contents |= _modules(found)
    return _tar(contents, directories=(holder.DIRECTORY, *_landmarks(found)))


def _key(python: str) -> str:
    status = os.stat(python)
    seen = [repr((FORMAT, sys.version, python, status.st_size, status.st_mtime_ns)).encode()]
    seen += [_read(f"{_OWN}/{name}") for name in OWN_MODULES]
    return digest(b"\0".join(seen))[:16]


def _look(python: str) -> dict[str, object]:
    done = proc.run(
        [python, "-I", "-S", "-c", _PROBE, os.path.dirname(_OWN)],
        timeout_s=_TIMEOUT_S,
        environment={"LC_ALL": "C.UTF-8"},
    )
    if done.code:
        raise HostError(
            "the image of cloister's own containers cannot be made",
            details=done.errors.decode(errors="replace")[-2000:],
            resolution="please report it",
        )
    found: dict[str, object] = json.loads(done.output)
    return found


def _libraries(found: dict[str, object], python: str) -> list[str]:
    mapped = found["mapped"]
    if not isinstance(mapped, list):
        raise TypeError("the probe's answer is not understood")
    return [str(path) for path in mapped if str(path) != python and _is_elf(str(path))]


def _library(path: str) -> dict[str, bytes | str]:
    """A shared library, and the links to it in its directory: it is asked for by its soname."""
    found: dict[str, bytes | str] = {path: _read(path)}
    directory = os.path.dirname(path)
    for name in os.listdir(directory):
        link = f"{directory}/{name}"
        if os.path.islink(link) and os.path.realpath(link) == path:
            found[link] = os.path.relpath(path, directory)
    return found


def _modules(found: dict[str, object]) -> dict[str, bytes | str]:
    modules = found["modules"]
    if not isinstance(modules, dict):
        raise TypeError("the probe's answer is not understood")
    made: dict[str, bytes | str] = {}
    for path in map(str, modules.values()):
        if not path.endswith(".py"):
            continue  # an extension: it is among what was mapped
        place = path
        if path.startswith(f"{_OWN}/"):
            place = f"{PACKAGE}/cloister{path.removeprefix(_OWN)}"
        made[f"{place}c"] = _compiled(_read(path), place)
    return made


def _compiled(source: bytes, place: str) -> bytes:
    """A .pyc that is never compared with a source (PEP 552: unchecked, hash-based)."""
    import importlib.util  # deferred, both: made once for each engine
    import marshal

    code = compile(source, place, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + struct.pack("<I", 0b01) + importlib.util.source_hash(source)
    return head + marshal.dumps(code)


def _landmarks(found: dict[str, object]) -> tuple[str, ...]:
    """Directories by which the interpreter knows where it is installed (Modules/getpath.py)."""
    prefix = found["prefix"]
    if not isinstance(prefix, list):
        raise TypeError("the probe's answer is not understood")
    return (f"{prefix[1]}/{found['library']}/python{found['version']}/lib-dynload",)


def interpreter(program: bytes) -> str:
    """The dynamic loader that an ELF program names (PT_INTERP); empty for a static one."""
    if program[:5] != b"\x7fELF\x02":
        return ""
    start, size, count = (
        struct.unpack_from("<Q", program, 32)[0],
        *struct.unpack_from("<HH", program, 54),
    )
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", program, start + number * size)
        if kind == 3:  # PT_INTERP
            return program[offset : offset + length].rstrip(b"\0").decode()
    return ""


def _tar(contents: dict[str, bytes | str], *, directories: tuple[str, ...]) -> bytes:
    """The same bytes for the same contents."""
    import io  # deferred, both: made once for each engine
    import tarfile

    wanted = set(directories)
    for path in contents:
        parent = os.path.dirname(path)
        while parent not in ("", "/"):
            wanted.add(parent)
            parent = os.path.dirname(parent)
    for path in directories:
        parent = os.path.dirname(path)
        while parent not in ("", "/"):
            wanted.add(parent)
            parent = os.path.dirname(parent)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(wanted):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.mode, entry.size = 0o755 if _is_elf_content(content) else 0o644, len(content)
                tar.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _is_elf_content(file.read(4))
    except OSError:
        return False  # [heap], or a file that is gone


def _is_elf_content(content: bytes) -> bool:
    return content[:4] == b"\x7fELF"


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
