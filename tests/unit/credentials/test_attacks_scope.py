"""Ways to make a narrow credential serve for more than it is for."""

from __future__ import annotations

import pytest

from cloister.credentials.repository import GitService, Repository, git_service, of_request
from cloister.gateway.use import Use, Uses, choose
from cloister.messages import Headers, RequestHead
from cloister.types import (
    Binding,
    Credential,
    Deny,
    HeaderInjection,
    Host,
    HostPattern,
    Reach,
)

PUSH = GitService(name="receive-pack", advertisement=False)
ASKS = GitService(name="receive-pack", advertisement=True)


@pytest.mark.parametrize(
    "path",
    [
        "/a/b.git/git-receive-pack",
        "/a/b.git/git-receive-pack/",
        "/a/b.git//git-receive-pack",
        "/a/b.git%2Fgit-receive-pack",
        "/a/b.git%252fgit-receive-pack",
        "/a/b.git/git%2dreceive-pack",
        "/a/b.git/git-receive-pack;x=1",
        "/a/b.git/git-receive-pack%3bx",
        "/a/b.git/git-receive-pack/.",
        "/a/b.git/git-receive-pack/x/..",
        "/a/b.git\\git-receive-pack",
        "/a/b.git/GIT-Receive-Pack",
        "/a/b.git/git-receive-pack%00",
        "/a/b.git/git-receive-pack%20",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "post"])
def test_a_push_is_seen_however_its_path_is_written(path: str, method: str) -> None:
    assert git_service(method, path, None) == PUSH


@pytest.mark.parametrize(
    "query",
    [
        "service=git-receive-pack",
        "service=git-upload-pack&service=git-receive-pack",
        "a=b;service=git-receive-pack",
        "ser%76ice=git%2Dreceive-pack",
        "service=git-receive-pack+",
    ],
)
@pytest.mark.parametrize(
    "path", ["/a/b.git/info/refs", "/a/b/info/refs/", "/a/b.git/info%2frefs", "/a/b//info//refs"]
)
def test_asking_where_to_push_is_seen(path: str, query: str) -> None:
    assert git_service("GET", path, query) == ASKS


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("PUT", "/repos/acme/widget/contents/git-upload-pack", None),
        ("DELETE", "/repos/acme/widget/git/refs/heads/git-upload-pack", None),
        ("PUT", "/repos/acme/widget/contents/info/refs", "service=git-upload-pack"),
        ("GET", "/a/b/info/refs", "service=git-evil"),
    ],
)
def test_a_fetch_is_one_only_as_git_asks_for_it(method: str, path: str, query: str | None) -> None:
    assert git_service(method, path, query) is None


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("github.com", "/acme/widget/../../evil/secret"),
        ("github.com", "/acme/widget/%2e%2e/%2E%2E/evil/secret"),
        ("github.com", "/acme/widget/.%2e/.%2e/evil/secret"),
        ("github.com", "/acme/widget/%252e%252e/%252e%252e/evil/secret"),
        ("github.com", "/acme/widget/..;/..;/evil/secret"),
        ("github.com", "/acme/widget/.."),
        ("github.com", "/acme/widget/..%2f..%2fevil/secret"),
        ("github.com", "/acme/widget/..%5c..%5cevil/secret"),
        ("github.com", "//acme/widget"),
        ("github.com", "/acme%2fwidget/x"),
        ("api.github.com", "/repos/acme/widget/%2e%2e/%2e%2e/evil/secret"),
        ("gitlab.com", "/api/v4/projects/acme%2Fwidget/%2e%2e/42"),
        ("gitlab.com", "/api/v4/projects/acme%2Fwidget%2F..%2F..%2Fevil%2Fsecret"),
        ("gitlab.com", "/api/v4/projects/42/repository"),
        ("gitlab.com", "/acme/widget.git/%2e%2e/%2e%2e/evil/secret.git/info/refs"),
        ("api.github.com", "/repositories/42/contents"),
        ("api.github.com", "/graphql"),
    ],
)
def test_a_path_that_may_lead_elsewhere_is_about_no_repository(host: str, path: str) -> None:
    found = of_request(host, path)
    assert found is None or found != Repository(owner="acme", name="widget")


def test_what_is_plainly_about_a_repository_stays_so() -> None:
    widget = Repository(owner="acme", name="widget")
    for host, path in (
        ("github.com", "/Acme/widget.git/info/refs"),
        ("api.github.com", "/repos/acme/widget/contents/a%20b.txt"),
        ("gitlab.com", "/api/v4/projects/acme%2Fwidget/repository/files/lib%2Fclass%2Erb"),
        ("gitlab.com", "/acme/widget/-/tree/main"),
    ):
        assert of_request(host, path) == widget


def _chosen(
    method: str, path: str, headers: Headers = (), query: str | None = None, host: str = "api.forge.test"
) -> Uses | Deny:
    binding = Binding(
        pattern=HostPattern(reach=Reach.EXACT, name=host),
        injection=HeaderInjection(name="authorization", template="Bearer {}"),
    )
    credential = Credential(
        name="c", source="env:C", placeholder="p" * 30, read_only=True, bindings=(binding,)
    )
    head = RequestHead(method=method, untrusted_authority=host, path=path, query=query, headers=headers)
    return choose((Use(credential=credential, binding=binding),), head, Host(name=host), tls=True)


GIT = ((b"content-type", b"application/x-git-upload-pack-request"),)


@pytest.mark.parametrize(
    ("method", "path", "headers", "query", "host"),
    [
        ("PUT", "/repos/a/b/contents/git-upload-pack", GIT, None, "api.forge.test"),
        ("POST", "/repos/a/b/labels/git-upload-pack", GIT, "name=x", "api.forge.test"),
        ("POST", "/api/v4/projects/1/repository/files/git-upload-pack", GIT, "branch=x", "forge.test"),
        ("POST", "/a/b.git/git-upload-pack", (), None, "forge.test"),
        ("POST", "/a/b.git/git-receive-pack", GIT, None, "forge.test"),
        ("GET", "/a/b.git/info/refs", (), "service=git-receive-pack", "forge.test"),
        ("GET", "/x", ((b"x-http-method-override", b"DELETE"),), None, "forge.test"),
        ("GET", "/x", ((b"x-method-override", b"patch"),), None, "forge.test"),
        ("GET", "/x", ((b"x_http-method_override", b"DELETE"),), None, "forge.test"),
        ("get", "/x", (), None, "forge.test"),
    ],
)
def test_a_credential_for_reading_does_not_write(
    method: str, path: str, headers: Headers, query: str | None, host: str
) -> None:
    assert isinstance(_chosen(method, path, headers, query, host), Deny)


def test_a_credential_for_reading_fetches() -> None:
    for method, path, headers, query in (
        ("POST", "/a/b.git/git-upload-pack", GIT, None),
        ("GET", "/a/b.git/info/refs", (), "service=git-upload-pack"),
        ("HEAD", "/x", (), None),
    ):
        assert isinstance(_chosen(method, path, headers, query, "forge.test"), Uses)
