"""What a container's view must know of its image: looked at once (runtimes/oci_image.py), kept by the image's id."""

from __future__ import annotations

from cloister.values import dataclass

DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Where images have the certificates that their programs trust. The first is there in any case: variables name it.
TRUST_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)
SHELLS = ("/bin/bash", "/bin/sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that the engine has. `shell` is empty where there is none."""

    id: str
    reference: str
    path: tuple[str, ...] = DEFAULT_PATH
    passwd: str = ""
    group: str = ""
    shell: str = ""
    has_sh: bool = False
    has_sleep: bool = False
    has_java: bool = False
    trust_stores: tuple[str, ...] = ()


def passwd(text: str, *, name: str, uid: int, gid: int, home: str, shell: str) -> str:
    """The image's passwd(5) with the agent in it; who had its name or number makes way."""
    kept = [
        line for line in _lines(text) if line.split(":")[0] != name and line.split(":")[2:3] != [str(uid)]
    ]
    mine = f"{name}:x:{uid}:{gid}::{home}:{shell or '/bin/sh'}"
    return "\n".join([*(kept or ["root:x:0:0:root:/root:/bin/sh"]), mine]) + "\n"


def group(text: str, *, name: str, gid: int) -> str:
    """The image's group(5) with the agent's."""
    kept = [
        line for line in _lines(text) if line.split(":")[0] != name and line.split(":")[2:3] != [str(gid)]
    ]
    return "\n".join([*(kept or ["root:x:0:"]), f"{name}:x:{gid}:"]) + "\n"


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.count(":") >= 2]
