"""Look at images, and bring our own into an engine.

Rule 1: what is in an image does not change under its id, so it is looked at once and kept.
Rule 2: an image is never run to be looked at: a container of it is made, files are copied out, and it is removed.
Rule 3: what comes from an image is untrusted: sizes have limits, and texts go only into files of the sandbox.
"""

from __future__ import annotations

import json
import os

from cloister.errors import HostError
from cloister.runtimes import oci_failures, oci_runtime
from cloister.runtimes.engine import Engine
from cloister.sandbox import image, registry
from cloister.system import files
from cloister.values import replace

_TEXT_LIMIT_BYTES = 1 << 18
_IMPORT_S = 120.0
_LOOK = "cloister-look-"  # then who looks: pid, start time; and random digits
_NOT_THERE = ("could not find", "could not be found", "no such file", "not a directory")


def look(engine: Engine, reference: str, state_directory: str) -> image.Image:
    """What a view must know of an image. HostError if the engine has no such image."""
    id_, pairs = _identify(engine, reference)
    path = f"{state_directory}/images/{_file_name(id_)}.json"
    stored = _load(path)
    if stored is not None:
        return replace(stored, reference=reference)
    variables = dict(str(pair).split("=", 1) for pair in pairs if "=" in str(pair))
    found = _look_inside(engine, id_, reference, variables)
    files.make_private_directory(os.path.dirname(path))
    files.write_atomic(
        path, json.dumps({name: getattr(found, name) for name in image.Image.__slots__}).encode()
    )
    return found


def _identify(engine: Engine, reference: str) -> tuple[str, list[object]]:
    """An image's id, and the environment that it sets."""
    match engine.look_up("images", reference):
        case {"Id": str(id_), "Config": dict(config)}:
            return id_, config.get("Env") or []
    done = engine.ask("image", "inspect", "--format", "{{.Id}}\n{{json .Config.Env}}", reference)
    if done.code:
        raise oci_failures.failure(
            engine.name,
            f"find the image {reference!r}",
            done.errors.decode(errors="replace"),
            image=reference,
        )
    id_, _, environment = done.output.decode(errors="replace").strip().partition("\n")
    return id_, json.loads(environment) or []


def _look_inside(engine: Engine, id_: str, reference: str, variables: dict[str, str]) -> image.Image:
    _remove_dead_looks(engine)
    me = registry.identify(os.getpid())
    started = me.started if me is not None else 0
    name = f"{_LOOK}{os.getpid()}-{started}-{os.urandom(3).hex()}"
    made = engine.ask("create", f"--name={name}", "--pull=never", "--network=none", "--entrypoint=/-", id_)
    if made.code:
        raise oci_failures.failure(
            engine.name,
            f"look into the image {reference!r}",
            made.errors.decode(errors="replace"),
            image=reference,
        )
    container = name
    try:
        path = tuple(part for part in variables.get("PATH", "").split(":") if part.startswith("/"))
        path = path or image.DEFAULT_PATH
        has_sh = _has(engine, container, "/bin/sh")
        return image.Image(
            id=id_,
            reference=reference,
            path=path,
            passwd=_text(engine, container, "/etc/passwd"),
            group=_text(engine, container, "/etc/group"),
            shell=next((shell for shell in image.SHELLS if _has(engine, container, shell)), ""),
            has_sh=has_sh,
            has_sleep=any(
                _has(engine, container, f"{directory}/sleep") for directory in ("/bin", "/usr/bin")
            ),
            has_java="JAVA_HOME" in variables or _has(engine, container, "/usr/bin/java"),
            trust_stores=(
                image.TRUST_STORES[0],
                *(store for store in image.TRUST_STORES[1:] if _has(engine, container, store)),
            ),
        )
    finally:
        engine.ask("rm", "--force", "--volumes", container)


def _remove_dead_looks(engine: Engine) -> None:
    """Remove what a look has left whose process was killed; those of others who look right now stay."""
    listing = engine.ask("ps", "--all", f"--filter=name={_LOOK}", "--format={{.Names}}")
    for name in listing.output.decode(errors="replace").split():
        words = name.removeprefix(_LOOK).split("-")
        if name.startswith(_LOOK) and len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
            process = registry.Process(pid=int(words[0]), started=int(words[1]))
            if not registry.alive(process):
                engine.ask("rm", "--force", "--volumes", name)


def import_runtime(engine: Engine, runtime: oci_runtime.Runtime) -> None:
    """Make the runtime image and give it to the engine; older ones that nothing uses go."""
    change = f"LABEL {oci_runtime.LABEL}=1"
    done = engine.ask(
        "import",
        f"--change={change}",
        "-",
        runtime.tag,
        stdin=oci_runtime.archive(runtime.program),
        timeout_s=_IMPORT_S,
    )
    if done.code:
        raise oci_failures.failure(
            engine.name, "take the image of cloister's own containers", done.errors.decode(errors="replace")
        )
    listing = engine.ask("images", f"--filter=label={oci_runtime.LABEL}", "--format={{.Repository}}:{{.Tag}}")
    mine = runtime.tag.partition(":")[0]
    for tag in listing.output.decode(errors="replace").split():
        repository, _, version = tag.rpartition("/")[2].partition(":")
        if repository == mine and version not in ("<none>", runtime.tag.partition(":")[2]):
            engine.ask("image", "rm", tag)  # refused if a container of another version uses it


def ensure_runtime(engine: Engine, runtime: oci_runtime.Runtime) -> None:
    """See to it that the engine has the runtime image. HostError if it does not take it."""
    if engine.ask("image", "inspect", "--format={{.Id}}", runtime.tag).code:
        import_runtime(engine, runtime)


def _has(engine: Engine, container: str, path: str) -> bool:
    return _copied(engine, container, path) is not None


def _text(engine: Engine, container: str, path: str) -> str:
    """A file's text; empty if there is none, or it is too large to be what it should be."""
    import io  # deferred, both: an image is looked at once
    import tarfile

    archive = _copied(engine, container, path, follow=True)
    if archive is None:
        return ""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            if member is None or not member.isreg() or member.size > _TEXT_LIMIT_BYTES:
                return ""
            content = tar.extractfile(member)
            return content.read().decode(errors="replace") if content is not None else ""
    except tarfile.TarError:
        return ""


def _copied(engine: Engine, container: str, path: str, *, follow: bool = False) -> bytes | None:
    options = ["--follow-link"] if follow and engine.name == "docker" else []
    done = engine.ask("cp", *options, f"{container}:{path}", "-")
    if done.code == 0:
        return done.output
    said = done.errors.decode(errors="replace")
    if not any(
        sign in said.lower() for sign in _NOT_THERE
    ):  # what is not known is not taken for absent, and kept
        raise oci_failures.failure(engine.name, f"look for {path!r} in the image", said)
    return None


def _load(path: str) -> image.Image | None:
    try:
        data = json.loads(files.read(path) or b"null")
        if data is None:
            return None
        return image.Image(
            **{**data, "path": tuple(data["path"]), "trust_stores": tuple(data["trust_stores"])}
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _file_name(id_: str) -> str:
    name = id_.removeprefix("sha256:")
    if not name or not name.isalnum():
        raise HostError(f"the engine names an image {id_[:80]!r}, which is no id")
    return name
