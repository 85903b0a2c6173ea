"""What to type to install a package, by package manager.

Rule 1: a package is named as its authors call it; the few that distributions rename are listed here.
"""

from __future__ import annotations

_RENAMED = {
    ("libseccomp", "apt"): "libseccomp2",
    ("libseccomp", "zypper"): "libseccomp2",
}
_COMMANDS = {
    "apt": "sudo apt-get install {}",
    "dnf": "sudo dnf install {}",
    "pacman": "sudo pacman -S {}",
    "apk": "sudo apk add {}",
    "zypper": "sudo zypper install {}",
}


def install(package: str, manager: str) -> str:
    """The command; a sentence if `manager` is empty or unknown."""
    name = _RENAMED.get((package, manager), package)
    return _COMMANDS.get(manager, "install {} with this system's package manager").format(name)
