"""What package managers are told: safe without a word, and nothing that was opted out of."""

from __future__ import annotations

from typing import Any

from cloister.config.compile import compile_plan
from cloister.config.packages import INSTALL_SCRIPTS, MINIMUM_AGE, SDISTS, load_defaults
from cloister.config.settings import Overrides


def packages(user: str = "", project: str | None = None) -> dict[str, Any]:
    plan = compile_plan(
        user=("config.toml", user),
        project=("/w/cloister.toml", project),
        overrides=Overrides(),
        home="/home/ada",
    )
    found = plan["packages"]
    assert isinstance(found, dict)
    return found


def test_installing_runs_nothing_by_default() -> None:
    found = packages()
    assert (found["install_scripts"], found["sdists"], found["minimum_age_days"]) == (False, False, 0)
    assert found["environment"] == {
        "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
        "GOPROXY": "https://proxy.golang.org,direct",
        "GOSUMDB": "sum.golang.org",
        "PIP_ONLY_BINARY": ":all:",
        "POETRY_INSTALLER_ONLY_BINARY": ":all:",
        "UV_NO_BUILD": "1",
        "YARN_ENABLE_SCRIPTS": "false",
        "YARN_IGNORE_SCRIPTS": "true",
        "npm_config_ignore_scripts": "true",
        "pnpm_config_ignore_scripts": "true",
    }
    assert found["files"] == {"/etc/uv/uv.toml": "no-build = true\n"}
    assert "npm_config_min_release_age" in found["unset"]


def test_what_is_opted_out_of_is_unset_and_not_reversed() -> None:
    found = packages(project="[packages]\ninstall_scripts = true\nsdists = true")
    assert sorted(found["environment"]) == ["CARGO_NET_GIT_FETCH_WITH_CLI", "GOPROXY", "GOSUMDB"]
    assert {"npm_config_ignore_scripts", "YARN_ENABLE_SCRIPTS", "PIP_ONLY_BINARY"} <= set(found["unset"])
    assert found["files"] == {"/etc/uv/uv.toml": ""}, "what an image may hold is covered"


def test_the_project_wins_over_the_user() -> None:
    user = "[packages]\ninstall_scripts = true\nminimum_age_days = 7"
    found = packages(user, "[packages]\ninstall_scripts = false")
    assert (found["install_scripts"], found["minimum_age_days"]) == (False, 7)


def test_a_minimum_age_in_each_managers_words() -> None:
    found = packages("[packages]\nminimum_age_days = 3")["environment"]
    assert found["npm_config_min_release_age"] == "3"
    assert found["pnpm_config_minimum_release_age"] == found["YARN_NPM_MINIMAL_AGE_GATE"] == "4320"
    assert found["PIP_UPLOADED_PRIOR_TO"] == found["UV_EXCLUDE_NEWER"] == "P3D"


def test_the_data_is_sound() -> None:
    for one in load_defaults():
        assert one.key in {"", INSTALL_SCRIPTS, SDISTS, MINIMUM_AGE}
        assert one.environment and one.meaning
        assert all(path.startswith("/etc/") for path in one.files)
