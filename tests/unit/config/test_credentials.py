"""Credentials of a configuration: where they go, what the sandbox sees of them, what they open."""

from __future__ import annotations

import base64
import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.config import shown
from cloister.config.compile import compile_plan
from cloister.config.injection import FORBIDDEN_HEADERS, parse_injection, slot, written
from cloister.config.place import Place
from cloister.config.preset import load_presets
from cloister.config.settings import Overrides
from cloister.credentials import placeholder
from cloister.errors import CloisterError, ConfigurationError, UsageError
from cloister.policy.codec import parse_policy
from cloister.policy.decide import Intercept, bindings, treatment
from cloister.policy.names import parse_host
from cloister.sandbox import environment
from cloister.types import Binding, Policy, Rule

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/credentials.toml").read_text())["case"]
PRESETS = {name: preset for name, preset in load_presets().items() if preset.credential is not None}
HERE = Place(source=None, path=(), option="here")
# What a preset cannot know.
NEEDED = {"aws": 'hosts = ["sts.amazonaws.com"]', "docker-hub": 'inject = "basic:ada"'}


def plan_of(text: str, *, project: str = "/w/project", **overrides: Any) -> Any:
    return compile_plan(
        user=("config.toml", text),
        project=(f"{project}/cloister.toml", None),
        overrides=Overrides(**overrides),
        home="/home/ada",
    )


def policy_of(text: str) -> Policy:
    return parse_policy(plan_of(text)["policy"])


def of_preset(name: str, *, called: str = "one") -> str:
    return (
        f'[[credential]]\nname = "{called}"\nsource = "env:REAL"\npreset = "{name}"\n{NEEDED.get(name, "")}\n'
    )


def words_of_binding(binding: Binding) -> str:
    ports = ",".join(map(str, sorted(binding.ports)))
    return " ".join([f"{binding.pattern}:{ports}", written(binding.injection), *binding.paths])


def words_of_grant(rule: Rule) -> str:
    methods = [",".join(sorted(rule.methods))] if rule.methods else []
    return " ".join([rule.id, f":{','.join(map(str, sorted(rule.ports)))}", *methods])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_a_credential_comes_to(case: dict[str, Any]) -> None:
    plan = plan_of(case["text"])
    policy = parse_policy(plan["policy"])
    sandbox = plan["sandbox"]
    if "goes" in case:
        found = [words_of_binding(b) for credential in policy.credentials for b in credential.bindings]
        assert found == case["goes"]
    if "shows" in case:
        expected = dict(line.split(" ", 1) for line in case["shows"])
        assert list(sandbox["environment"]) == list(expected)
        for name, beginning in expected.items():
            assert sandbox["environment"][name].startswith(beginning)
    if "files" in case:
        assert list(sandbox["files"]) == case["files"]
    for text in case.get("contains", []):
        assert text in "".join(sandbox["files"].values())
    if "opens" in case:
        own = [words_of_grant(rule) for rule in policy.grants if rule.id.startswith("credential:")]
        assert own == case["opens"]
    if "git" in case:
        assert sandbox["ssh_to_https"] == case["git"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_enough_for_a_credential(name: str) -> None:
    plan = plan_of(of_preset(name))
    policy = parse_policy(plan["policy"])
    (credential,) = policy.credentials
    for binding in credential.bindings:
        host = parse_host(binding.pattern.name)
        assert bindings(policy, host, 443), "it is not bound where it says"
        assert isinstance(treatment(policy, host, 443), Intercept), "its requests are not read"
        assert slot(binding.injection), "a preset never replaces wherever the placeholder stands"
    texts = [*plan["sandbox"]["environment"].values(), *plan["sandbox"]["files"].values()]
    encoded = [base64.b64decode(text + "==", validate=False).decode("latin-1") for text in _base64(texts)]
    held = "\n".join([*texts, *encoded])
    assert credential.placeholder in held or not texts
    assert "{" not in "".join(plan["sandbox"]["environment"].values()), "a template was left unfilled"
    assert "env:REAL" not in held


def _base64(texts: list[str]) -> list[str]:
    """What looks like base64 in a Docker configuration."""
    return [
        entry["auth"]
        for text in texts
        if text.startswith("{")
        for entry in json.loads(text).get("auths", {}).values()
    ]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(PRESETS, 2)), ids="-".join)
def test_any_two_presets_go_together(one: str, other: str) -> None:
    """Nobody's GITHUB_TOKEN keeps them from using npm."""
    policy = policy_of(of_preset(one) + of_preset(other, called="two"))
    assert [credential.name for credential in policy.credentials] == ["one", "two"]


def test_the_presets_of_the_issue_exist() -> None:
    asked = (
        "anthropic anthropic-oauth openai google github gitlab npm pypi hex crates aws cloudflare docker-hub"
    )
    assert set(asked.split()) <= set(PRESETS)


def test_a_placeholder_is_the_same_at_each_start_and_another_for_each_project_and_name() -> None:
    def made(project: str, name: str) -> str:
        text = of_preset("github", called=name)
        return parse_policy(plan_of(text, project=project)["policy"]).credentials[0].placeholder

    assert made("/w/a", "x") == made("/w/a", "x")
    assert len({made("/w/a", "x"), made("/w/b", "x"), made("/w/a", "y")}) == 3


def test_files_are_texts_that_the_tools_can_read() -> None:
    plan = plan_of(
        of_preset("github") + of_preset("docker-hub", called="two") + of_preset("ghcr", called="3")
    )
    auths = json.loads(plan["sandbox"]["files"][".docker/config.json"])["auths"]
    user, _, text = base64.b64decode(auths["https://index.docker.io/v1/"]["auth"]).decode().partition(":")
    assert user == "ada"
    assert text.startswith("dckr_pat_")
    assert plan["sandbox"]["files"][".config/gh/hosts.yml"].startswith(
        "github.com:\n    git_protocol: https\n"
    )


def test_what_the_user_sets_wins_over_a_placeholder() -> None:
    text = '[sandbox]\nenv = { GITHUB_TOKEN = "mine" }\n' + of_preset("github")
    shown_there = plan_of(text)["sandbox"]["environment"]
    assert shown_there["GITHUB_TOKEN"] == "mine"
    assert shown_there["GH_TOKEN"].startswith("ghp_")
    assert (
        plan_of(of_preset("github"), environment=(("GH_TOKEN", "x"),))["sandbox"]["environment"]["GH_TOKEN"]
        == "x"
    )


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GH_TOKEN", "REAL"])
def test_the_command_line_cannot_pass_the_real_value_in(name: str) -> None:
    """-e NAME alone passes the host's variable: the placeholder's, or the one that the value is read from."""
    with pytest.raises(ConfigurationError, match="would bring the real value of credential") as caught:
        plan_of(of_preset("github"), environment=((name, None),))
    assert caught.value.resolution == f'remove "{name}" from pass_env'


@pytest.mark.parametrize("readable", ["/home/ada/.secrets", "/home/ada/.secrets/token", "/home/ada"])
def test_a_file_that_the_sandbox_can_read_is_no_source(
    readable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.exists", lambda _: True)
    text = (
        f'[sandbox]\nread_only = ["{readable}"]\n[[credential]]\nname = "one"\nsource = "file:~/.secrets/token"\n'
        'hosts = ["a.example.com"]\ninject = "bearer"\n'
    )
    with pytest.raises(ConfigurationError, match="the sandbox can read this file"):
        plan_of(text)
    assert plan_of(text.replace(readable, "/home/ada/.secret"))


def test_a_file_is_never_mounted_into_the_workspace() -> None:
    text = of_preset("npm") + 'files = { "~/w/p/.npmrc" = "{placeholder}" }\n'
    with pytest.raises(ConfigurationError, match="this file lies in the workspace"):
        plan_of(text, project="/home/ada/w/p")
    assert plan_of(text, project="/home/ada/w/q")


def test_no_variable_that_steers_programs_holds_a_placeholder() -> None:
    """What environment.py sets itself must be known to shown.py, which cannot import it."""
    ours = {*environment.PROXY_VARIABLES, *environment.TRUST_VARIABLES, "PATH", "HOME", "SSH_AUTH_SOCK"}
    assert ours <= shown.STEERING
    assert set(environment.NEVER_PREFIXES) <= set(shown.STEERING_PREFIXES)
    for name in (*sorted(ours), "LD_PRELOAD", "BASH_FUNC_x", "CLOISTER_SANDBOX", "NODE_OPTIONS", "BASH_ENV"):
        with pytest.raises(ConfigurationError, match=r"this variable steers programs|this is no name of"):
            plan_of(of_preset("github") + f'env = "{name}"\n')


@pytest.mark.parametrize(
    "text",
    ["bearer", "basic:me", "basic:x-access-token", "header:x-key", "header:authorization:Token {}", "query:key",
     "replace", "aws-sigv4", "header:x:{}:y", "header:x:a:b {} c"],
)  # fmt: skip
def test_an_injection_is_shown_as_it_was_written(text: str) -> None:
    assert written(parse_injection(text, HERE)) == text


@pytest.mark.parametrize(
    "text",
    ["", "Bearer", "bearer:", "bearer:x", "basic", "basic:", "basic:a:b", "basic:a b", "basic:a\r\n", "header:",
     "header:x y", "header:x\r\ny", "header:x:", "header:x:{}{}", "header:x:no", "header:x: {}", "header:x:{} ",
     "header:x:{}\r\nhost: evil", "header:x:{}\n", "header:x:\u2028{}", "header:x:é{}", "header:x:{}\0", "query:",
     "query:a=b", "query:a&b", "replace:", "aws-sigv4:x", "aws", "none", "header:x:{}" + "y" * 300,
     *(f"header:{name}" for name in sorted(FORBIDDEN_HEADERS)), "header:Host", "header:Sec-WebSocket-Key"],
)  # fmt: skip
def test_what_is_no_injection(text: str) -> None:
    with pytest.raises(UsageError):
        parse_injection(text, HERE)


@given(st.text(max_size=60))
def test_no_injection_can_end_its_header(text: str) -> None:
    for kind in ("basic:", "header:x-key:", "header:", "query:"):
        try:
            found = written(parse_injection(kind + text, HERE))
        except UsageError:
            continue
        assert found.isascii()
        assert found.isprintable()


@given(
    st.text(max_size=40),
    st.sampled_from(["name", "source", "hosts", "inject", "env", "placeholder", "files"]),
)
def test_any_text_in_a_credential_is_accepted_or_a_fault(text: str, key: str) -> None:
    values = {
        "name": "one", "source": "env:REAL", "hosts": ["a.example.com"], "inject": "bearer", "env": "KEY",
        "placeholder": "plain", "files": {"~/.x": "{placeholder}"},
    }  # fmt: skip
    values[key] = [text] if key == "hosts" else {f"~/{text}": "{placeholder}"} if key == "files" else text
    try:
        plan = plan_of("[[credential]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in values.items()))
    except CloisterError as error:
        assert "\x1b" not in str(error)
        return
    assert parse_policy(json.loads(json.dumps(plan["policy"])))
    for path in plan["sandbox"]["files"]:
        assert ".." not in path.split("/")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    escaped = "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in str(value))
    return f'"{escaped}"'


def test_shapes_of_presets_are_known() -> None:
    for preset in PRESETS.values():
        assert preset.credential is not None
        assert preset.credential.shape in placeholder.SHAPES


def test_the_agent_of_the_plan() -> None:
    assert plan_of("")["ssh"] == {"agent": False, "keys": [], "hosts": [], "confirm": True}
    text = '[ssh]\nagent = true\nkeys = ["ada@laptop"]\nhosts = ["Git.Example.com"]\nconfirm = false\n'
    assert plan_of(text)["ssh"] == {
        "agent": True,
        "keys": ["ada@laptop"],
        "hosts": ["git.example.com"],
        "confirm": False,
    }


def test_passthrough_and_pushes_of_the_policy() -> None:
    policy = policy_of(
        '[network]\nallow = ["registry.npmjs.org", "*.pinned.example.com"]\n'
        'passthrough = ["*.pinned.example.com", "registry.npmjs.org"]\n'
        '[git]\npush = ["refs/heads/agent/*", "refs/heads/**", "refs/tags/v1"]\ndelete = true\n'
    )
    assert [str(pattern) for pattern in policy.passthrough] == ["*.pinned.example.com", "registry.npmjs.org"]
    assert policy.push.refs == ("refs/heads/agent/*", "refs/heads/**", "refs/tags/v1")
    assert (policy.push.delete, policy.push.force) == (True, False)


@pytest.mark.parametrize(("user", "project", "expected"), [("", "true", True), ("true", "", True), ("true", "false", False),
                                                           ("false", "true", False), ("", "", False), ("", "false", False)])  # fmt: skip
def test_of_two_files_the_stricter_one_counts(user: str, project: str, *, expected: bool) -> None:
    """What the user's file says is not loosened by a project's."""

    def text(said: str) -> str:
        inverted = {"true": "false", "false": "true", "": ""}[said]
        keys = [f"{key} = {value}\n" for key, value in (("agent", said), ("confirm", inverted)) if value]
        git = "".join(f"{key} = {said}\n" for key in ("delete", "force") if said)
        return f'[git]\n{git}[ssh]\nkeys = ["k"]\nhosts = ["git.example.com"]\n{"".join(keys)}'

    plan: Any = compile_plan(
        user=("config.toml", text(user)),
        project=("/w/cloister.toml", text(project)),
        overrides=Overrides(),
        home="/home/ada",
    )
    push = parse_policy(plan["policy"]).push
    assert (push.delete, push.force, plan["ssh"]["agent"], plan["ssh"]["confirm"]) == (
        expected,
        expected,
        expected,
        not expected,
    )
