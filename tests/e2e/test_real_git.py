"""git with a credential that the sandbox never sees: clone, fetch, and pushes that are judged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.credentialed import TOKEN, WAYS, Configure, trace
from tests.fakes.git_origin import NAME as GIT
from tests.fakes.git_origin import GitOrigin
from tests.fakes.origins import Authority

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]


@WAYS
def test_git(configure: Configure, authority: Authority, way: str) -> None:
    """Clone, fetch and push work without a password in the sandbox; what may not be pushed is refused in git's words."""
    with GitOrigin(authority, password=TOKEN) as git:
        cloister = configure(
            {GIT: git.port},
            f"""
[[credential]]
name = "git"
source = "env:REAL_TOKEN"
hosts = ["{GIT}"]
inject = "basic:x-access-token"
[git]
push = ["refs/heads/agent/*"]
""",
        )
        script = f"""{way} exec 2>&1; export GIT_TERMINAL_PROMPT=0
        say() {{ echo "== $1 $2"; }}
        git clone -q https://{GIT}/widget.git copy; say clone $?; cd copy
        git config user.name agent; git config user.email agent@example.test
        git checkout -q -b agent/one; head -c 2000000 /dev/urandom > big; git add big; git commit -q -m second
        git push -q origin agent/one; say push $?
        echo more >> README; git commit -q -a -m third; git push -q origin agent/one; say again $?
        git fetch -q origin; git log --format=%s origin/agent/one; say fetch $?
        git push origin HEAD:main; say main $?
        git commit -q --amend -m rewritten; git push -f origin agent/one; say force $?
        git push origin :agent/one; say delete $?
        git push -q origin HEAD:refs/heads/agent/two HEAD:refs/tags/v1; say both $?"""
        before = git.refs()
        done = cloister.sh(script)
        after = git.refs()
    said = dict(_steps(done.out))
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {
        "clone": 0, "push": 0, "again": 0, "fetch": 0, "main": 1, "force": 1, "delete": 1, "both": 1,
    }, done  # fmt: skip
    assert said["fetch"][1].splitlines() == ["third", "second", "first"]
    assert "pushing to it is not allowed; allowed: refs/heads/agent/*" in said["main"][1]
    assert "moving it to what does not follow is not allowed" in said["force"][1]
    assert "deleting it is not allowed" in said["delete"][1]
    assert "v1 (cloister: pushing to it is not allowed" in said["both"][1]
    assert "agent/two (cloister: refused together with another ref" in said["both"][1]
    assert set(after) == {*before, "refs/heads/agent/one"}
    assert after["refs/heads/main"] == before["refs/heads/main"]
    # Two pushes, and the empty request that git sends ahead of one larger than http.postBuffer.
    assert git.services.count("git-receive-pack") == 3, "a refused push never leaves"
    refused = [str(event["reason"]) for event in cloister.events("refuse")]
    assert len(refused) == 4, refused
    trace(cloister, done)


@WAYS
def test_git_of_github_with_an_ssh_address(configure: Configure, authority: Authority, way: str) -> None:
    """SSH addresses go over HTTPS; a credential of one repository is for no other."""
    with GitOrigin(authority, password=TOKEN, name="github.com", path="acme/widget.git") as git:
        cloister = configure(
            {"github.com": git.port},
            """
[[credential]]
name = "github"
source = "env:REAL_TOKEN"
preset = "github"
repositories = ["Acme/widget"]
""",
        )
        script = f"""{way} exec 2>&1; export GIT_TERMINAL_PROMPT=0
        say() {{ echo "== $1 $2"; }}
        git clone -q git@github.com:acme/widget.git one; say scp $?
        git clone -q ssh://git@github.com/acme/widget two; say ssh $?
        cat one/README two/README; say read $?
        git clone -q git@github.com:acme/other.git three; say other $?
        cd one; git push origin HEAD:refs/heads/agent/x; say push $?"""
        done = cloister.sh(script)
    said = dict(_steps(done.out))
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {"scp": 0, "ssh": 0, "read": 0, "other": 128, "push": 128}, done
    assert said["read"][1] == "a widget\n" * 2
    assert "nothing may be pushed from this sandbox" in said["push"][1]
    assert not any("receive" in service for service in git.services)
    trace(cloister, done)


def _steps(text: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """What a script said before each of its lines `== NAME CODE`."""
    said = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("== "):
            _, name, code = line.split()
            yield name, (int(code), said)
            said = ""
        else:
            said += line
