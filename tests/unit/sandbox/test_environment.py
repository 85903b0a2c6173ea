from __future__ import annotations

import pytest

from cloister.sandbox import environment
from cloister.sandbox.facts import Facts
from cloister.sandbox.toolchains import Toolchains


def inside(host: dict[str, str], **options: object) -> dict[str, str]:
    facts = Facts(uid=1000, gid=1000, user_name="ada", home="/home/ada", environ=host, path=())
    tools = Toolchains(binds=(), path=("/usr/bin",), variables=(("GOROOT", "/usr/go"),), has_java=True)
    return dict(
        environment.variables(facts=facts, toolchains=tools, sandbox_id="s1", **options)  # type: ignore[arg-type]  # each test names one option
    )


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "LD_PRELOAD",
     "PYTHONPATH", "NODE_OPTIONS", "GIT_SSH_COMMAND", "BASH_ENV", "VSCODE_IPC_HOOK_CLI", "DOCKER_HOST"],
)  # fmt: skip
def test_nothing_passes_by_default(name: str) -> None:
    assert name not in inside({name: "x"})


def test_what_passes() -> None:
    found = inside({"TERM": "xterm", "LC_ALL": "C.UTF-8", "TZ": "UTC", "SHELL": "/home/ada/bin/fish"})
    assert (found["TERM"], found["LC_ALL"], found["TZ"], found["GOROOT"]) == (
        "xterm",
        "C.UTF-8",
        "UTC",
        "/usr/go",
    )
    assert (found["HOME"], found["USER"], found["PATH"]) == ("/home/ada", "ada", "/usr/bin")
    assert found["SHELL"] == "/bin/sh", "a shell that the sandbox may not have"


def test_the_proxy_and_the_roots() -> None:
    found = inside({"HTTPS_PROXY": "http://corporate:3128", "SSL_CERT_FILE": "/elsewhere"})
    assert found["https_proxy"] == found["HTTPS_PROXY"] == "http://127.0.0.1:3128"
    assert found["SSL_CERT_FILE"] == found["NODE_EXTRA_CA_CERTS"] == environment.CA_BUNDLE
    assert found["CLOISTER_SANDBOX"] == "s1"


def test_the_plan_adds_and_wins_but_for_our_id() -> None:
    found = inside(
        {"FOO": "1", "LD_PRELOAD": "x"},
        passed=["FOO", "BAR", "LD_PRELOAD"],
        chosen={"PAGER": "cat", "CLOISTER_SANDBOX": "x", "A=B": "1", "": "1"},
    )
    assert (found["FOO"], found["PAGER"], found["CLOISTER_SANDBOX"]) == ("1", "cat", "s1")
    assert not {"BAR", "LD_PRELOAD", "A=B", ""} & set(found)


def test_java_is_told_only_of_a_store_that_is_written() -> None:
    assert "JAVA_TOOL_OPTIONS" not in inside({})
    assert environment.TRUST_STORE in inside({}, trust_store=True)["JAVA_TOOL_OPTIONS"]


def test_what_package_managers_are_told_gives_way_to_the_user() -> None:
    told = {"npm_config_ignore_scripts": "true", "PIP_ONLY_BINARY": ":all:"}
    assert inside({}, packages=told).items() >= told.items()
    found = inside(
        {"PIP_ONLY_BINARY": ":none:"},
        packages=told,
        passed=["PIP_ONLY_BINARY"],
        chosen={"npm_config_ignore_scripts": "false"},
    )
    assert (found["PIP_ONLY_BINARY"], found["npm_config_ignore_scripts"]) == (":none:", "false")
