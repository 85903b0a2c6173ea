"""Rendered build contexts, compared whole. Renew the golden files with: python tests/unit/images/test_render.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.errors import UsageError
from cloister.images.build import image_recipe
from cloister.images.layer import Layer, known_name, load_layers, names
from cloister.images.render import CONTAINERFILE, recipe

GOLDEN = Path(__file__).parents[2] / "golden" / "images"


@pytest.mark.parametrize("name", names())
def test_containerfiles(name: str) -> None:
    assert image_recipe(name).files[CONTAINERFILE] == (GOLDEN / f"{name}.Containerfile").read_text()


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


def test_full_has_every_language_on_one_base() -> None:
    text = image_recipe("full").files[CONTAINERFILE]
    assert text.count("FROM ${BASE}") == 1
    for layer in load_layers().values():
        assert all(package in text for package in layer.packages)


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
