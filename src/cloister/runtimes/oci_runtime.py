"""The *runtime image*: what our own containers run, made of this host's Python and imported into an engine once.

It holds an interpreter, the modules and shared libraries that the holder (network/holder.py), or the gateway in a
container (outpost/main.py), was seen to load, and nothing else: no shell, no package manager, no other program. So the
agent's image may be any, with nothing of ours.

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
from cloister.runtimes.oci_argv import GATEWAY_USER
from cloister.system import files, proc
from cloister.values import dataclass

FORMAT = 1  # raise when what this module makes changes
PACKAGE = "/cloister"  # where our modules are in the image
LABEL = "dev.cloister.runtime"
_TIMEOUT_S = 30.0
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What the holder imports of ours: `test_oci_runtime.py` compares.
OWN_MODULES = (
    "__init__.py", "lean.py", "network/__init__.py", "network/enter.py", "network/forward.py",
    "network/holder.py", "network/plumb.py", "network/standin.py", "system/__init__.py", "system/linux.py",
    "system/netlink.py",
)  # fmt: skip
# Where all that the gateway imports of ours is (the same test), and what else it imports.
_GATEWAY_PACKAGES = (
    "audit", "credentials", "gateway", "network", "outpost", "policy", "runtimes", "secrets", "system",
)  # fmt: skip
_FOREIGN = (
    "cryptography", "h2", "hpack", "hyperframe", "wsproto", "h11", "idna", "ahocorasick_rs", "brotli", "zstandard",
)  # fmt: skip
_NAME_SERVICE = "/etc/nsswitch.conf", b"hosts: files dns\n"
_PROBE = """\
import sys
sys.path[:0] = sys.argv[1:]
{trial}
found = {{name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}}
mapped = sorted({{line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line}})
import json
print(json.dumps({{"modules": found, "mapped": mapped, "prefix": [sys.prefix, sys.exec_prefix],
    "library": sys.platlibdir, "version": "%d.%d" % sys.version_info[:2]}}))
"""
# What a gateway loads when it first needs it is loaded here: each module, and what a first use of some brings.
_GATEWAY_TRIAL = """\
from cloister.gateway import asyncio_without_ssl
import contextlib, importlib, os, socket, ssl
import cloister.credentials, cloister.gateway, cloister.gateway.http, cloister.policy.address
import ahocorasick_rs, brotli, encodings.idna, idna, ipaddress, zstandard, _strptime
with contextlib.suppress(ImportError):
    import botocore.auth, botocore.awsrequest, botocore.credentials
for package in (cloister.credentials, cloister.gateway, cloister.gateway.http):
    for name in sorted(os.listdir(package.__path__[0])):
        if name.endswith(".py") and name not in ("__init__.py", "ssh.py", "truststore.py"):
            importlib.import_module(package.__name__ + "." + name[:-3])
from cloister.outpost import main
from cloister.network import enter, forward, holder
from cloister.gateway.authority import Authority
from cloister.gateway import tls
Authority("trial").leaf("a.example")
ssl.create_default_context()
"b\u00fccher.example".encode("idna"); idna.encode("b\u00fccher.example")
socket.getaddrinfo("localhost", 1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What an image is for: statements that load it all, and that run it. `foreign`: it imports more than ours."""

    name: str
    trial: str
    run: str
    foreign: bool = False


HOLDER = Program(
    name="runtime",
    trial="from cloister.network import holder",
    run="from cloister.network import holder; holder.main()",
)
# The holder's image too where the gateway runs in a container: one image, imported once.
GATEWAY = Program(
    name="gateway",
    trial=_GATEWAY_TRIAL,
    run="from cloister.gateway import asyncio_without_ssl; from cloister.outpost import main; main.main()",
    foreign=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The image's tag, and the program and environment that run what is in it."""

    tag: str
    python: str
    library_path: str
    program: Program = HOLDER
    path: tuple[str, ...] = (PACKAGE,)

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line. No site, no environment, no user directory."""
        return self.command(self.program)

    def command(self, program: Program) -> tuple[str, ...]:
        """That of a program which the image holds."""
        return (
            self.python, "-I", "-S", "-c", f"import sys; sys.path[:0] = {[*self.path]!r}; {program.run}",
        )  # fmt: skip


def runtime(state_directory: str, program: Program = HOLDER) -> Runtime:
    """Name the image of this interpreter and this cloister. Its library path is known once it has been made here."""
    python = os.path.realpath(sys.executable)
    key = _key(python, program)
    stored = files.read_text(f"{state_directory}/oci-{program.name}") or ""
    known, _, library_path = stored.partition("\n")
    if known != key or not library_path:
        found = _look(python, program)
        library_path = ":".join(sorted({os.path.dirname(path) for path in _libraries(found, python)}))
        files.make_private_directory(state_directory)
        files.write_atomic(f"{state_directory}/oci-{program.name}", f"{key}\n{library_path}".encode())
    return Runtime(
        tag=f"cloister-{program.name}:{key}",
        python=python,
        library_path=library_path,
        program=program,
        path=(PACKAGE, *_foreign(program)),
    )


def archive(program: Program = HOLDER) -> bytes:
    """The image's root file system, as a tar."""
    python = os.path.realpath(sys.executable)
    found = _look(python, program)
    contents: dict[str, bytes | str] = {python: _read(python)}  # path → content, or the target of a link
    for path in _libraries(found, python):
        contents |= _library(path)
    loader = interpreter(contents[python])  # type: ignore[arg-type]  # the program's bytes
    if loader:
        contents[loader] = _read(os.path.realpath(loader))
    contents |= _modules(found)
    if program.foreign:
        contents |= dict([_NAME_SERVICE])
    return _tar(contents, directories=(holder.DIRECTORY, *_landmarks(found)))


def _key(python: str, program: Program) -> str:
    status = os.stat(python)
    seen = [repr((FORMAT, program, sys.version, python, status.st_size, status.st_mtime_ns)).encode()]
    names = _all_of_gateway() if program.foreign else OWN_MODULES
    seen += [_read(f"{_OWN}/{name}") for name in names]
    for package in _FOREIGN if program.foreign else ():
        status = os.stat(_origin(package))
        seen.append(repr((package, status.st_size, status.st_mtime_ns)).encode())
    return digest(b"\0".join(seen))[:16]


def _all_of_gateway() -> list[str]:
    """Every module of ours that the gateway's image may hold, as a path below our package."""
    found = [name for name in os.listdir(_OWN) if name.endswith(".py")]
    for package in _GATEWAY_PACKAGES:
        for directory, _, names in os.walk(f"{_OWN}/{package}"):
            found += [f"{directory[len(_OWN) + 1 :]}/{name}" for name in names if name.endswith(".py")]
    return sorted(found)


def _origin(package: str) -> str:
    import importlib.util  # deferred: only where the gateway runs in a container

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise HostError(f"the Python package {package!r} is missing", resolution="install cloister anew")
    return spec.origin


def _foreign(program: Program) -> tuple[str, ...]:
    """The directories of what the program imports beside ours and Python's own."""
    if not program.foreign:
        return ()
    return tuple(sorted({os.path.dirname(os.path.dirname(_origin(package))) for package in _FOREIGN}))


def _look(python: str, program: Program) -> dict[str, object]:
    done = proc.run(
        [
            python, "-I", "-S", "-c", _PROBE.format(trial=program.trial),
            os.path.dirname(_OWN), *_foreign(program),
        ],
        timeout_s=_TIMEOUT_S,
        environment={"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
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
            if (
                path == holder.DIRECTORY
            ):  # a new volume there takes its owner: the gateway makes its socket in it
                entry.uid = entry.gid = GATEWAY_USER
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
