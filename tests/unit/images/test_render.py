"""Rendered build contexts, compared whole. Renew the golden files with: python tests/unit/images/test_render.py"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cloister.errors import UsageError
from cloister.images.build import image_recipe
from cloister.images.layer import Layer, known_name, load_layers, load_mise, names
from cloister.images.render import CONTAINERFILE, recipe
from cloister.images.tools import checked_authority, checked_tool

TOOLS = ("node@22", "npm:pnpm@10")
GOLDEN = Path(__file__).parents[2] / "golden" / "images"


@pytest.mark.parametrize("name", names())
def test_containerfiles(name: str) -> None:
    assert image_recipe(name).files[CONTAINERFILE] == (GOLDEN / f"{name}.Containerfile").read_text()


def test_tools_by_version() -> None:
    found = image_recipe("ts", tools=TOOLS, authority="PEM")
    assert found.files[CONTAINERFILE] == (GOLDEN / "ts-with-tools.Containerfile").read_text()
    assert found.files["fetch/ca.pem"] == "PEM"
    final = found.files[CONTAINERFILE].partition(" AS image\n")[2]
    assert "ca.pem" not in final and "/tmp" not in final, "what fetches is left behind"
    assert "fetch/ca.pem" not in image_recipe("ts", authority="PEM").files, "nothing is fetched"


def test_mise_is_pinned() -> None:
    for address, digest in load_mise().sources.values():
        assert address.startswith("https://") and re.fullmatch("[0-9a-f]{128}", digest)


@pytest.mark.parametrize(
    "tool", ["node", "node@", "@22", "a b@1", "x@1;id", "x@$(id)", "-x@1", "../x@1", "x@1'", "x\n@1"]
)
def test_what_is_no_tool(tool: str) -> None:
    with pytest.raises(UsageError, match="is no tool with a version"):
        checked_tool(tool)


def test_an_authority_is_certificates_alone() -> None:
    one = "-----BEGIN CERTIFICATE-----\n"
    assert checked_authority("x.pem", one) == one
    for text, words in (
        (one + "-----BEGIN PRIVATE KEY-----", "holds a private key"),
        ("", "holds no certificate"),
    ):
        with pytest.raises(UsageError, match=words):
            checked_authority("x.pem", text)


def test_the_context_holds_what_package_managers_read() -> None:
    assert image_recipe("base").files["files/etc/uv/uv.toml"] == "no-build = true\n"
    plain = recipe("base", load_layers(), environment={}, files={"/etc/uv/uv.toml": ""})
    assert list(plain.files) == [CONTAINERFILE]
    assert "COPY" not in plain.files[CONTAINERFILE]


def test_the_hash_is_that_of_everything_in_the_image() -> None:
    one = image_recipe("python")
    first = one.content_hash(base_id="sha256:a", platform="linux/amd64")
    assert len(first) == 12
    assert first == one.content_hash(base_id="sha256:a", platform="linux/amd64")
    others = {
        one.content_hash(base_id="sha256:b", platform="linux/amd64"),
        one.content_hash(base_id="sha256:a", platform="linux/arm64"),
        image_recipe("ts").content_hash(base_id="sha256:a", platform="linux/amd64"),
        recipe("python", load_layers(), environment={}, files={}).content_hash(
            base_id="sha256:a", platform="linux/amd64"
        ),
    }
    assert len(others | {first}) == 5


def test_a_change_of_settings_builds_no_package_again() -> None:
    text = image_recipe("python").files[CONTAINERFILE]
    assert text.rindex("apt-get") < text.index("ENV PIP_ONLY_BINARY"), "settings come last"


def test_layers_are_sound() -> None:
    layers = load_layers()
    assert list(layers) == ["base", "elixir", "go", "python", "rust", "ts", "full"]
    for layer in layers.values():
        assert layer.title and all(layers[one].packages for one in layer.includes)
        assert "sudo" not in layer.packages
        assert json.dumps(layer.packages).isascii()


def test_the_first_choice_that_the_distribution_has_counts() -> None:
    layer = Layer(name="x", title="t", packages=("p",), choices=(("a", "b"), ("c",), ("d",)))
    text = recipe("x", load_layers() | {"x": layer}, environment={}, files={}).files[CONTAINERFILE]
    lines = [line.strip() for line in text.splitlines() if "chosen" in line]
    assert lines == [
        'chosen="d"; \\',
        'if apt-cache "$@" show c >/dev/null 2>&1; then chosen="c"; fi; \\',
        'if apt-cache "$@" show a >/dev/null 2>&1 && apt-cache "$@" show b >/dev/null 2>&1; then chosen="a b"; fi; \\',
        'apt-get -q "$@" install -y --no-install-recommends p $chosen; \\',
    ]


def test_full_has_every_language_on_one_base() -> None:
    text = image_recipe("full").files[CONTAINERFILE]
    assert text.count("FROM ${BASE}") == 1
    for layer in load_layers().values():
        assert all(package in text for package in (*layer.packages, *sum(layer.choices, ())))


def test_layers_hold_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    assert all("ghp_secret" not in text for text in image_recipe("full").files.values())


@pytest.mark.parametrize(
    ("given", "meant"),
    [("pyhton", "python"), ("node", "ts"), ("Rust", "rust"), ("golang", "go"), ("all", "full")],
)
def test_an_unknown_name_has_a_nearest_one(given: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        known_name(given)
    assert caught.value.resolution == f"did you mean: cloister image build {meant}"
    assert "expected: base, elixir, go, python, rust, ts, full" in caught.value.details


def test_a_name_like_no_other() -> None:
    with pytest.raises(UsageError) as caught:
        known_name("--privileged")
    assert caught.value.resolution == "run: cloister image list"


def test_commands_of_a_layer_run_before_rights_are_taken_away() -> None:
    layers = load_layers() | {
        "x": Layer(name="x", title="t", packages=("p",), commands=("install -m 4755 a b",))
    }
    text = recipe("x", layers, environment={}, files={}).files[CONTAINERFILE]
    assert text.index("install -m 4755 a b") < text.rindex("-perm /6000 -exec chmod a-s")


if __name__ == "__main__":
    for image in names():
        (GOLDEN / f"{image}.Containerfile").write_text(image_recipe(image).files[CONTAINERFILE])
    with_tools = image_recipe("ts", tools=TOOLS, authority="PEM").files[CONTAINERFILE]
    (GOLDEN / "ts-with-tools.Containerfile").write_text(with_tools)
