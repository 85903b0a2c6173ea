"""AppArmor profiles that let two programs create user namespaces where Ubuntu 23.10 and newer restrict them.

Both are needed: bubblewrap, and the Python of cloister, since the plumber enters namespaces itself.
A profile that only allows `userns` and is otherwise unconfined is what Ubuntu itself ships for browsers
(https://discourse.ubuntu.com/t/spec-unprivileged-user-namespace-restrictions-via-apparmor-in-ubuntu-23-10/37626).
"""

from __future__ import annotations

DIRECTORY = "/etc/apparmor.d"


def profile(*, name: str, program: str) -> str:
    """The profile's text for the program at the absolute path `program`."""
    return f"""abi <abi/4.0>,
include <tunables/global>

profile {name} {quoted(program)} flags=(unconfined) {{
  userns,
  include if exists <local/{name}>
}}
"""


def install_commands(*, bwrap: str, python: str) -> str:
    """What to type as a user who may use sudo: writes both profiles and loads them."""
    commands = [f"# This lets every program that {python} runs create user namespaces."]
    for name, program in (("cloister-bwrap", bwrap), ("cloister-python", python)):
        commands.append(
            f"sudo tee {DIRECTORY}/{name} >/dev/null <<'END'\n{profile(name=name, program=program)}END\n"
            f"sudo apparmor_parser -r {DIRECTORY}/{name}"
        )
    return "\n".join(commands)


def quoted(path: str) -> str:
    r"""AppArmor's quoting: the path in double quotes, its pattern characters escaped (apparmor.d(5))."""
    return (
        '"'
        + "".join(f"\\{character}" if character in '"\\*?[]{}^@' else character for character in path)
        + '"'
    )
