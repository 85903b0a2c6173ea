"""Files: what is planted, what is read that should not be seen (FS, CFG)."""

from __future__ import annotations

import os
import stat

from cloister.verify.inside.talk import CONFIG, Probe, RefusedError, probe


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write("attack")
    return "written"


def read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(1 << 16)
    if CONFIG["file_canary"].encode() not in data:
        raise RefusedError(f"{len(data)} bytes, without the canary")
    return "the canary was read"


@probe("FS-1")
def plant(found: Probe) -> None:
    work = CONFIG["workspace"]
    if CONFIG.get("live"):
        held(found, CONFIG["planted"])
        return
    found.control("an ordinary file of the workspace", lambda: write(f"{work}/ordinary-{os.getpid()}"))
    for path in CONFIG["planted"]:
        found.attack(f"write {path}", plant_at, f"{work}/{path}")
    found.attack("rename .git away", lambda: os.rename(f"{work}/.git", f"{work}/.git-away"))
    found.attack("rename .vscode away", lambda: os.rename(f"{work}/.vscode", f"{work}/.vscode-away"))
    found.attack("remove .git/hooks", lambda: os.rmdir(f"{work}/.git/hooks"))


def held(found: Probe, paths: list[str]) -> None:
    """In a live sandbox: what is held can be opened for writing no more than it can be written."""
    if not paths:
        found.missing = (
            "nothing of its workspace is held: it is one of the sandbox's own, or holds nothing of the kind"
        )
    own = f"{CONFIG['workspace']}/own-{os.getpid()}"
    write(own)
    found.control("an ordinary file", opened, own)
    os.unlink(own)
    for path in paths:
        found.attack(f"open {path} for writing", opened, path)


def opened(path: str) -> str:
    if os.path.isdir(path):
        path = f"{path}/own-{os.getpid()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    return "it can be written"


def plant_at(path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return write(path)


@probe("CFG-1")
def own_configuration(found: Probe) -> None:
    work = CONFIG["workspace"]
    if CONFIG.get("live"):
        held(found, [path for path in CONFIG["planted"] if path.endswith("/cloister.toml")])
        return
    found.control("an ordinary file of the workspace", lambda: write(f"{work}/ordinary-{os.getpid()}"))
    found.attack("write cloister.toml", lambda: write(f"{work}/cloister.toml"))

    def replaced() -> None:
        write(f"{work}/other.toml")
        os.rename(f"{work}/other.toml", f"{work}/cloister.toml")

    found.attack("move another file there", replaced)
    found.attack("remove it", lambda: os.rmdir(f"{work}/cloister.toml"))


@probe("FS-2")
def links(found: Probe) -> None:
    work, secret = CONFIG["workspace"], CONFIG["canary_file"]
    inner = f"{work}/inner-{os.getpid()}"
    write_text(inner, CONFIG["file_canary"])
    link = f"{work}/link-{os.getpid()}"
    os.symlink(inner, link)
    found.control("a link within the workspace", lambda: read(link))
    os.unlink(link)

    def follow(target: str) -> str:
        os.symlink(target, link)
        try:
            return read(link)
        finally:
            os.unlink(link)

    found.attack("a symbolic link out of the workspace", lambda: follow(secret))
    found.attack("through ..", lambda: read(f"{work}/../{os.path.basename(secret)}"))
    found.attack("through /proc/self/root", lambda: read(f"/proc/self/root{secret}"))
    found.attack("through /proc/1/root", lambda: read(f"/proc/1/root{secret}"))
    found.attack("a hard link", lambda: os.link(secret, f"{work}/hard-{os.getpid()}"))
    found.attack("through /proc/1/cwd", lambda: read(f"/proc/1/cwd/{secret}"))
    os.unlink(inner)


def write_text(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


@probe("FS-3")
def home(found: Probe) -> None:
    own = f"{CONFIG['workspace']}/own-{os.getpid()}"
    write_text(own, CONFIG["file_canary"])
    found.control("a file of the workspace", lambda: read(own))
    os.unlink(own)
    for path in (CONFIG["canary_file"], *CONFIG["private_files"]):
        found.attack(f"read {path}", read, path)

    def walked() -> str:
        for top in (os.path.expanduser("~"), "/root", "/home", "/mnt", "/media", "/srv", "/var/tmp", "/tmp"):
            for directory, names, files in os.walk(top):
                if directory.count("/") > 6:
                    names.clear()
                for one in files:
                    path = f"{directory}/{one}"
                    if one.startswith(("canary", ".canary")):
                        return read(path)
        raise RefusedError("no canary in sight")

    found.attack("look for it everywhere", walked)
    found.attack("read /etc/shadow", lambda: open("/etc/shadow", "rb").close())


@probe("FS-4")
def special_files(found: Probe) -> None:
    path = f"{CONFIG['workspace']}/special-{os.getpid()}"
    write(path)
    found.control("an ordinary mode", lambda: os.chmod(path, 0o750))
    found.attack("set-user-id", lambda: os.chmod(path, 0o4750))
    found.attack("set-group-id", lambda: os.chmod(path, 0o2750))
    found.attack("create a set-user-id file", suid, f"{path}-new")
    found.attack("a device", os.mknod, f"{path}-device", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    for one in (path, f"{path}-new", f"{path}-device"):
        if os.path.lexists(one):
            os.unlink(one)


def suid(path: str) -> str:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o4755))
    if not os.stat(path).st_mode & stat.S_ISUID:
        raise RefusedError("without the bit")
    return "made"


@probe("FS-7")
def files_in_memory(found: Probe) -> None:
    limit = CONFIG["memory"]
    found.note("files on the host's disk, in the workspace and the home, are not limited")
    places = in_memory()
    found.control("a file in memory", in_some, places)
    for path, _, inodes in places:
        if not inodes:
            found.attack(f"files without number in {path}", str, "no limit")
    if not limit:
        found.note("its limit of memory is not known: the configuration has changed, or sets none")
        return
    total = sum(size for _, size, _ in places)
    found.attack(f"files in memory that take more than the limit of {limit} bytes", larger, total, limit)
    path, size, _ = min(places, key=lambda place: place[1])
    if size <= (LIVE_FILL_LIMIT if CONFIG.get("live") else FILL_LIMIT):
        found.attack(f"more than its {size} bytes in {path}", fill, path, size)


FILL_LIMIT, LIVE_FILL_LIMIT = 256 << 20, 1 << 20


def in_memory() -> list[tuple[str, int, int]]:
    """The file systems in memory that this process can write: path, bytes, inodes."""
    found = []
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" ") for line in file]
    for fields in lines:
        path = fields[4].encode().decode("unicode_escape")
        if "tmpfs" not in fields[fields.index("-") + 1 :][0] or "rw" not in fields[5].split(","):
            continue
        try:
            mode = os.stat(path)
            if stat.S_ISDIR(mode.st_mode) and (mode.st_uid == os.getuid() or os.access(path, os.W_OK)):
                size = os.statvfs(path)
                found.append((path, size.f_frsize * size.f_blocks, size.f_files))
        except OSError:
            continue
    return found


def in_some(places: list[tuple[str, int, int]]) -> str:
    write(f"{places[0][0]}/small-{os.getpid()}")
    os.unlink(f"{places[0][0]}/small-{os.getpid()}")
    return f"{len(places)} places, the first is {places[0][0]}"


def larger(total: int, limit: int) -> str:
    if total <= limit:
        raise RefusedError(f"{total} bytes in all")
    return f"{total} bytes in all"


def fill(path: str, size: int) -> str:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if os.stat(path).st_uid == os.getuid():
        os.chmod(path, 0o700)
    name = f"{path}/large-{os.getpid()}"
    try:
        with open(name, "wb", 0) as file:
            for _ in range(size // (1 << 20) + 2):
                file.write(bytes(1 << 20))
    finally:
        if os.path.lexists(name):
            os.unlink(name)
        if os.stat(path).st_uid == os.getuid():
            os.chmod(path, mode)
    return "written"


@probe("FS-6")
def masked(found: Probe) -> None:
    work, live = CONFIG["workspace"], CONFIG.get("live")
    if not CONFIG["masked"]:
        found.missing = "the workspace holds no secret that was there at its start" if live else UNMASKED
        return
    readable = f"{work}/own-{os.getpid()}" if live else f"{work}/readme.txt"
    if live:
        write(readable)
    found.control("a file that is no secret", something if live else read, readable)
    if live:
        os.unlink(readable)
    for path in CONFIG["masked"]:
        found.attack(f"read {path}", something if live else read, path if live else f"{work}/{path}")


UNMASKED = "the configuration unmasks every name that is tried"


def something(path: str) -> str:
    with open(path, "rb") as file:
        size = len(file.read(1 << 16))
    if not size:
        raise RefusedError("it is empty")
    return f"{size} bytes"
