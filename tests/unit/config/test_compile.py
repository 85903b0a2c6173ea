"""The compiled plan: what profiles, presets, files and the command line come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.config.compile import compile_plan, compile_project
from cloister.config.preset import load_presets
from cloister.config.settings import Overrides
from cloister.errors import ConfigurationError, UntrustedConfigurationError, UsageError
from cloister.policy.codec import parse_policy
from cloister.types import Policy, Reach

PRESETS = load_presets()
NOTHING = Overrides()
ALLOW = '[network]\nallow = ["api.example.com"]\n'


def plan_of(user: str | None = None, project: str | None = None, overrides: Overrides = NOTHING) -> Any:
    return compile_plan(
        user=("config.toml", user), project=("cloister.toml", project), overrides=overrides, home="/h"
    )


def policy_of(user: str | None = None, project: str | None = None, overrides: Overrides = NOTHING) -> Policy:
    return parse_policy(plan_of(user, project, overrides)["policy"])


def ids(policy: Policy) -> list[str]:
    return [rule.id for rule in policy.grants]


def of_presets(*kinds: str) -> set[str]:
    return {rule.id for preset in PRESETS.values() if preset.kind in kinds for rule in preset.rules()}


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("offline", set()),
        ("registries", of_presets("registry")),
        ("agent", {*of_presets("registry", "model"), "project:allow:api.example.com"}),
        ("full", {"profile:full", "project:allow:api.example.com"}),
    ],
)
def test_what_a_profile_grants(profile: str, expected: set[str]) -> None:
    assert set(ids(policy_of(project=ALLOW, overrides=Overrides(profile=profile)))) == expected


def test_only_full_grants_any_host() -> None:
    for profile in ("offline", "registries", "agent", "full"):
        grants = policy_of(project=ALLOW, overrides=Overrides(profile=profile)).grants
        assert any(rule.pattern.reach is Reach.UNSAFE_ANY for rule in grants) == (profile == "full")


def test_bans_and_the_command_line_count_in_every_profile() -> None:
    for profile in ("offline", "registries", "agent", "full"):
        policy = policy_of(
            project='[network]\ndeny = ["x.example.com"]',
            overrides=Overrides(profile=profile, allow=("tcp://db.example.com:5432",)),
        )
        assert ids(policy)[-1] == "command-line:allow:tcp://db.example.com:5432"
        assert [ban.id for ban in policy.bans] == ["project:deny:x.example.com"]
        assert policy.bans[0].ports == {80, 443, 5432}, "a ban without a port covers every port that opens"


def test_a_ban_with_a_port_covers_it_alone() -> None:
    assert policy_of(project='[network]\ndeny = ["x.example.com:8080"]').bans[0].ports == {8080}


def test_presets_of_files_come_after_the_profiles_each_once() -> None:
    policy = policy_of('[network]\npresets = ["github", "pypi"]', '[network]\npresets = ["github"]')
    assert ids(policy).count("preset:github:github.com") == 1
    assert ids(policy).count("preset:pypi:pypi.org") == 1
    assert ids(policy)[-1].startswith("preset:github:")
    assert "preset:github:github.com" not in ids(policy_of())


def test_a_presets_hosts_that_take_uploads_are_left_out() -> None:
    for preset in PRESETS.values():
        assert not set(preset.hosts) & set(preset.left_out)
        assert bool(preset.rules()) == (preset.kind != "credential")
        assert set(preset.reading) <= set(preset.hosts)
        assert set(preset.git) <= set(preset.hosts)
        for rule in preset.rules():
            is_reading = rule.pattern.name in preset.reading
            assert rule.note.startswith("read only" if is_reading else "by name only")
            assert bool(rule.methods) == is_reading


def test_the_users_entries_come_first_and_say_whose_they_are() -> None:
    policy = policy_of(
        '[network]\nallow = ["a.example.com"]',
        '[network]\nallow = ["b.example.com"]\n[[network.rule]]\nhost = "c.example.com"\nscheme = "http"\n'
        'methods = ["GET"]\npaths = ["/a/**"]\naddresses = ["10.0.0.0/8"]',
    )
    assert ids(policy)[-3:] == [
        "user:allow:a.example.com",
        "project:allow:b.example.com",
        "project:rule:1:c.example.com",
    ]
    rule = policy.grants[-1]
    assert (sorted(rule.ports), sorted(rule.methods), list(rule.paths)) == ([80], ["GET"], ["/a/**"])
    assert rule.address_ranges == ("10.0.0.0/8",)


def test_bound_names_are_exact_with_special_ports_in_the_order_of_the_grants() -> None:
    text = (
        '[network]\nallow = ["z.example.com:9000", "plain.example.com", "*.w.example.com:8443", '
        '"tcp://a.example.com:5432", "z.example.com:8000", "p.example.com:443"]'
    )
    assert plan_of(project=text)["bound"] == [
        {"host": "z.example.com", "ports": [8000, 9000]},
        {"host": "a.example.com", "ports": [5432]},
    ]
    assert plan_of(project=text, overrides=Overrides(profile="offline"))["bound"] == []


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", None),
        ("10.0.0.1:8443", "10.0.0.1", 8443),
        ("2001:DB8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ("fd00::", "fd00::", None),
    ],
)
def test_pinned_hosts(text: str, address: str, port: int | None) -> None:
    plan = plan_of(f'[network.hosts]\n"DB.example.com." = "{text}"')
    assert plan["hosts"] == {"db.example.com": {"address": address, "port": port}}


def test_a_value_of_the_project_wins_over_the_users_and_the_command_line_over_both() -> None:
    user = (
        '[sandbox]\nmemory = "1g"\ncpus = 1\npids = 100\nenv = { A = "user", U = "user" }\npass_env = ["P"]'
    )
    project = (
        '[sandbox]\nmemory = "2GiB"\npids = 200\nenv = { A = "project", C = "project" }\nunmask = ["x/"]'
    )
    sandbox = plan_of(user, project)["sandbox"]
    assert (sandbox["memory_bytes"], sandbox["cpus"], sandbox["pids"]) == (2 << 30, 1.0, 200)
    assert sandbox["environment"] == {"A": "project", "U": "user", "C": "project"}
    given = Overrides(
        memory="512m",
        cpus=0.5,
        pids=300,
        environment=(("A", "line"), ("C", None), ("P", None)),
        unmask=("x", "y"),
    )
    sandbox = plan_of(user, project, given)["sandbox"]
    assert (sandbox["memory_bytes"], sandbox["cpus"], sandbox["pids"]) == (512 << 20, 0.5, 300)
    assert sandbox["environment"] == {"A": "line", "U": "user"}
    assert sandbox["pass_environment"] == ["P", "C"]
    assert sandbox["unmask"] == ["x", "y"]


def test_defaults() -> None:
    plan = plan_of()
    assert plan["profile"] == "agent"
    sandbox = plan["sandbox"]
    assert (sandbox["memory_bytes"], sandbox["cpus"], sandbox["pids"]) == (8 << 30, 4.0, 1024)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (Overrides(allow=("*",)), '--allow: "*" would allow every host'),
        (Overrides(profile="agnet"), "--profile: unknown profile"),
        (
            Overrides(image="a"),
            "--image: the embedded runtime has no image: its tools are those of this machine",
        ),
        (Overrides(memory="x"), "--memory: this is no size of memory"),
    ],
)
def test_a_fault_of_the_command_line_is_one_of_usage(overrides: Overrides, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(overrides=overrides)
    assert caught.value.brief == words


def test_sources_are_every_file_that_was_read_or_is_missing(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    workspace = tmp_path / "work"
    workspace.mkdir()
    plan = compile_project(str(workspace), environ, NOTHING)
    state = next(path for path in [plan["sources"]] if isinstance(path, list))
    paths = [source["path"] for source in state]
    assert paths[:2] == [str(tmp_path / ".config/cloister/config.toml"), str(workspace / "cloister.toml")]
    assert paths[2].startswith(str(tmp_path / ".local/state/cloister/projects/work-"))
    assert paths[2].endswith("/adopted.toml")
    assert [source["text"] for source in state] == [None, None, None]
    assert json.loads(json.dumps(plan)) == plan
    Path(paths[0]).parent.mkdir(parents=True)
    Path(paths[0]).write_text("# mine\n")
    Path(paths[0]).chmod(0o600)
    (workspace / "cloister.toml").write_text(ALLOW)
    with pytest.raises(UntrustedConfigurationError):
        compile_project(str(workspace), environ, NOTHING)
    without = compile_project(str(workspace), environ, Overrides(no_project_file=True))
    assert without["sources"] == [{"path": paths[0], "text": "# mine\n"}]
    assert "project:allow:api.example.com" not in ids(parse_policy(without["policy"]))


def published(user: str | None = None, project: str | None = None, overrides: Overrides = NOTHING) -> Any:
    sandbox = plan_of(user, project, overrides)["sandbox"]
    return sandbox["ports"], sandbox["detect_ports"]


def test_nothing_is_published_by_default() -> None:
    assert published() == ([], False)


def test_ports_of_all_files_and_the_command_line_add_up_each_once() -> None:
    found = published(
        "[sandbox]\nports = [3000]",
        '[sandbox]\nports = ["3000", "8080:3001", "auto:5173"]',
        Overrides(ports=("9000", "8080:3001")),
    )
    assert found == (
        [
            {"host": 3000, "sandbox": 3000},
            {"host": 8080, "sandbox": 3001},
            {"host": 5173, "sandbox": 5173, "auto": True},
            {"host": 9000, "sandbox": 9000},
        ],
        False,
    )


@pytest.mark.parametrize("text", ['"detect"', '["detect"]', '["detect", "detect"]'])
def test_ports_are_looked_for_where_a_file_or_the_command_line_says_so(text: str) -> None:
    assert published(f"[sandbox]\nports = {text}") == ([], True)
    assert published(overrides=Overrides(detect_ports=True)) == ([], True)


@pytest.mark.parametrize("text", ["443", "3000:53", "x", "detect", "0.0.0.0:80"])
def test_a_wrong_port_of_the_command_line_is_a_fault_of_the_command_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        published(overrides=Overrides(ports=(text,)))
    assert caught.value.brief.startswith("--publish: ")


def test_ports_of_two_files_that_want_the_same_one_here_are_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        published("[sandbox]\nports = [3000]", '[sandbox]\nports = ["3000:4000"]')
    assert (
        caught.value.brief == "cloister.toml:2: [sandbox] ports: port 3000 of this machine is published twice"
    )


SERVICE = '[services.db]\nimage = "postgres:16"\nport = 5432\nenv_from = { PASS = "env:PGPASS" }\n'


def test_a_service_is_a_grant_of_its_name_and_ports() -> None:
    plan = plan_of(project=SERVICE)
    (rule,) = [grant for grant in plan["policy"]["grants"] if grant["id"] == "service:db"]
    assert (rule["reach"], rule["name"], rule["ports"], rule["transport"]) == ("exact", "db", [5432], "tcp")
    assert {"host": "db", "ports": [5432]} in plan["bound"]
    assert plan["hosts"] == {}, "where it is, is known when it runs"
    (service,) = plan["services"]
    assert service["secrets"] == {"PASS": "env:PGPASS"}, "never the value"
    assert json.loads(json.dumps(plan))


@pytest.mark.parametrize("profile", ["offline", "registries"])
def test_services_are_only_where_something_declared_is_reached(profile: str) -> None:
    plan = plan_of(project=SERVICE, overrides=Overrides(profile=profile))
    assert plan["services"] == []
    assert "service:db" not in ids(parse_policy(plan["policy"]))


def test_the_projects_service_replaces_the_users_of_that_name() -> None:
    plan = plan_of(
        '[services.db]\nimage = "x"\nport = 1\nkeep = true\n[services.a]\nimage = "y"\nport = 2', SERVICE
    )
    found = [(one["name"], one["image"], list(one["ports"]), one["keep"]) for one in plan["services"]]
    assert found == [("a", "y", [2], False), ("db", "postgres:16", [5432], False)]


def test_a_service_whose_name_is_pinned_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="elsewhere"):
        plan_of('[network.hosts]\ndb = "10.0.0.1"', SERVICE)
