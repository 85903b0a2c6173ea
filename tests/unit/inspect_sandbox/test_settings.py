"""What a task says of its sandbox."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cloister.inspect_sandbox import settings
from cloister.inspect_sandbox.settings import CloisterConfig


def test_without_a_word_it_is_offline_and_mounts_nothing_of_the_host() -> None:
    assert settings.arguments(CloisterConfig()) == ["--workspace-kind=volume", "--profile=offline"]


def test_a_file_says_all_but_the_kind_of_workspace() -> None:
    assert settings.arguments(settings.OF_THE_FILE) == ["--workspace-kind=volume"]


def test_every_field_is_an_option_and_no_value_becomes_another() -> None:
    config = CloisterConfig(
        runtime="docker", image="--force", workspace="clone", profile="agent", allow=("a.example.com", "-e"),
        memory="1g", cpus=0.5, pids=9,
    )  # fmt: skip
    assert settings.arguments(config) == [
        "--runtime=docker", "--image=--force", "--workspace-kind=clone", "--profile=agent", "--memory=1g",
        "--cpus=0.5", "--pids=9", "--allow=a.example.com", "--allow=-e",
    ]  # fmt: skip


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="profil"):
        CloisterConfig.model_validate({"profil": "offline"})
