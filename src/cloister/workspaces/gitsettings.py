"""What the host's git is told where a sandbox may have written: its environment, and the one configuration it reads.

Rule 1: git never reads a configuration that a sandbox could write. It works in a git directory of ours (scratch.py),
whose configuration is rendered here from the harmless part of the repository's own (sandbox/gitclean.py).
Rule 2: what git executes by default, or on the word of its environment, is turned off by name as well.
Rule 3: no I/O.
"""

from __future__ import annotations

from cloister.errors import RepositoryError
from cloister.sandbox import gitclean, gitconfig

NOTHING = "/dev/null"
REFUSING = "/bin/false"  # a program that answers no question

# After the repository's own settings, so that these count.
FORCED = f"""\
[core]
\tbare = false
\thooksPath = {NOTHING}
\tfsmonitor = false
\tattributesFile = {NOTHING}
\tpager = cat
\teditor = {REFUSING}
\tsshCommand = {REFUSING}
\taskPass = {REFUSING}
\tlogAllRefUpdates = false
\tprotectHFS = true
\tprotectNTFS = true
[protocol]
\tallow = never
[protocol "file"]
\tallow = always
[credential]
\thelper =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[submodule]
\trecurse = false
[fetch]
\trecurseSubmodules = false
\tunpackLimit = 1
\twriteCommitGraph = false
[transfer]
\tfsckObjects = true
\tbundleURI = false
[pack]
\twindow = 0
\tcompression = 1
[diff]
\tignoreSubmodules = all
[commit]
\tgpgSign = false
[log]
\tshowSignature = false
"""

_LEFT_OUT = ("remote", "branch", "submodule", "init")  # no address, and nothing that asks for one


def environment(home: str) -> dict[str, str]:
    """The whole environment of git. `home`: an empty directory, where it finds no settings."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": NOTHING,
        "GIT_CONFIG_GLOBAL": NOTHING,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": REFUSING,
        "SSH_ASKPASS": REFUSING,
        "GIT_SSH_COMMAND": REFUSING,
        "GIT_SSH_VARIANT": "simple",
        "GIT_EDITOR": REFUSING,
        "GIT_SEQUENCE_EDITOR": REFUSING,
        "GIT_PAGER": "cat",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ADVICE": "0",
        "GIT_FLUSH": "0",
    }


def configuration(untrusted_text: str, *, excludes_file: str = NOTHING) -> str:
    """Render the configuration of a scratch directory from that of its repository.

    RepositoryError for what git could not read without a setting that is left out here.
    """
    for entry in gitconfig.entries(untrusted_text):
        _refuse_unreadable(entry)
    clean, _ = gitclean.cleaned(untrusted_text)
    kept = [entry for entry in gitconfig.entries(clean) if entry.section not in _LEFT_OUT]
    excludes = f"[core]\n\texcludesFile = {gitconfig.quoted(excludes_file)}\n"
    return "".join(map(_rendered, kept)) + FORCED + excludes


def _rendered(entry: gitconfig.Entry) -> str:
    heading = (
        f"[{entry.section} {gitconfig.quoted(entry.subsection)}]"
        if entry.subsection
        else f"[{entry.section}]"
    )
    return f"{heading}\n\t{entry.key} = {gitconfig.quoted(entry.value)}\n"


def _refuse_unreadable(entry: gitconfig.Entry) -> None:
    if entry.section != "extensions":
        return
    if entry.key == "refstorage" and entry.value.lower() != "files":
        raise RepositoryError(
            f"the repository keeps its refs as {entry.value!r}, which cloister does not read yet",
            resolution="convert it: git refs migrate --ref-format=files",
        )
    if entry.key == "partialclone":
        raise RepositoryError(
            "the repository is a partial clone: objects are missing, and would have to be fetched",
            resolution="complete it: git fetch --refetch --no-filter && git config --unset extensions.partialClone",
        )
