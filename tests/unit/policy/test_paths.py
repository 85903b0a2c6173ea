"""Path globs, and the dodges of ATTACKS HTTP-4."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import UntrustedInputError
from cloister.policy.match import PatternError
from cloister.policy.paths import canonical_path, covers_path, globs_overlap, parse_glob

DODGES = [
    "/a/../b",
    "/..",
    "/./a",
    "/a/.",
    "/a/%2e%2e/b",
    "/a/%2E/b",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a%5Cb",
    "/a;x/b",
    "/a%3bx",
    "//a",
    "/a//b",
    "/a\\b",
    "/a#b",
    "/a?b",
    "/a%00",
    "/a%0d%0a",
    "/a%7f",
    "/%61dmin",
    "/a%2",
    "/a%",
    "/a%zz",
    "/a%252e",
    "/a%25",
    "/a/%c0%ae%c0%ae/b",
    "/a/%e0%80%ae/b",
    "/a%f0%80%80%afb",
    "/a%ff",
    "/caf%e9",
    "/é",
    "a/b",
    "http://x/a",
    "*",
]


@pytest.mark.parametrize("path", [*DODGES, "", "/a b", "/a\nb", "/a\0"])
def test_a_path_that_can_be_read_in_two_ways_has_no_canonical_form(path: str) -> None:
    with pytest.raises(UntrustedInputError):
        canonical_path(path)


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/", "/a.b/..c/d..", "/~x/@scope/a+b,c=d:e!$&'()*", "/caf%C3%A9"]
)
def test_plain_paths_stay_as_they_are(path: str) -> None:
    assert canonical_path(path) == path


def test_escapes_are_compared_in_one_case() -> None:
    assert canonical_path("/caf%c3%a9") == canonical_path("/caf%C3%A9")
    assert covers_path(parse_glob("/caf%c3%a9"), canonical_path("/caf%C3%A9"))


@given(st.text())
def test_any_path_is_canonical_at_once_or_refused(text: str) -> None:
    try:
        path = canonical_path("/" + text)
    except UntrustedInputError:
        return
    assert canonical_path(path) == path


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/a/", False),
        ("/a", "/ab", False),
        ("/a", "/x/a", False),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b/c", False),
        ("/a/*", "/a", False),
        ("/a/*.whl", "/a/b.whl", True),
        ("/a/*.whl", "/a/b.whl.exe", False),
        ("/a/b*c*d", "/a/bXcYd", True),
        ("/a/b*c*d", "/a/bXdYc", False),
        ("/a/bc*cb", "/a/bcb", False),
        ("/**", "/", True),
        ("/**", "/a/b/c", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a/", True),
        ("/a/**", "/a", False),
        ("/a/**", "/ab/c", False),
        ("/a/**/z", "/a/z", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/b/c/z/y", False),
        ("/**/m/**/z", "/a/m/b/z", True),
        ("/**/m/**/z", "/a/b/z", False),
        ("/A", "/a", False),
    ],
)
def test_globs_match_whole_paths(glob: str, path: str, expected: bool) -> None:
    assert covers_path(parse_glob(glob), canonical_path(path)) is expected


def test_many_stars_stay_fast() -> None:
    glob = parse_glob("/" + "/".join(["**", "a*a*a*a*b"] * 50))
    assert not covers_path(glob, "/" + "/".join(["a" * 60] * 400))


@pytest.mark.parametrize(
    ("glob", "why"),
    [("a/b", "starts with"), ("/a**", "alone"), ("/../b", "ever match"), ("/a?b", "ever match")],
)
def test_a_glob_that_could_never_match_is_refused(glob: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        parse_glob(glob)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/b", False),
        ("/a", "/a/b", False),
        ("/a/**", "/a", False),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a/*", True),
        ("/a/**/d", "/a/d", True),
        ("/**/info/refs", "/api/**", True),
        ("/**/git-upload-pack", "/api/*", True),
        ("/**/git-upload-pack", "/api/*/x", False),
        ("/a/*/c", "/a/b/*", True),
        ("/a/*/c", "/a/b/d", False),
        ("/a*", "/*b", True),
        ("/a*c", "/ab*", True),
        ("/a*c", "/b*", False),
        ("/ab*", "/a", False),
        ("/**", "/", True),
        ("/**/a", "/b/**", True),
        ("/x/**/y", "/**/z", False),
        ("/x/**/y", "/**/z/*", True),
    ],
)
def test_globs_that_overlap(one: str, other: str, *, expected: bool) -> None:
    assert globs_overlap(one, other) is expected
    assert globs_overlap(other, one) is expected


SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "**", ""])
GLOBS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "aab", ""]), min_size=1, max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)


@given(GLOBS, GLOBS, PATHS)
def test_globs_that_share_a_path_overlap(one: str, other: str, path: str) -> None:
    if covers_path(one, path) and covers_path(other, path):
        assert globs_overlap(one, other)


@given(GLOBS, GLOBS)
def test_globs_that_overlap_share_a_path(one: str, other: str) -> None:
    """Small globs over two letters: if any path is shared, a short one is."""
    shared = any(covers_path(one, path) and covers_path(other, path) for path in SHORT_PATHS)
    assert globs_overlap(one, other) is shared


SHORT_PATHS = [
    "/" + "/".join(parts)
    for length in range(1, 7)
    for parts in itertools.product(["", "a", "b", "ab"], repeat=length)
]
