"""Images as they are built: on a private engine, upon a base that has what must not be in them.

`base`, `python` and `ts`, which have most users; all of them, and Podman, with CLOISTER_ALL_IMAGES=1 (`make images`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.images.layer import names
from tests.e2e.test_packages import MANIFEST, SETUP, archive
from tests.e2e.test_registries import pins
from tests.engines import IMAGE, Engine
from tests.world import Cloister, Identity

pytestmark = [pytest.mark.engine, pytest.mark.root, pytest.mark.timeout(1500)]

ALL = bool(os.environ.get("CLOISTER_ALL_IMAGES"))
BUILT = names() if ALL else ("base", "python", "ts")
BUILD_S = 1200.0
BASE = "images-hostile"
PLANT = """set -e; cp /bin/sh /usr/bin/gains-root; chmod 6755 /usr/bin/gains-root; cp /bin/sh /usr/bin/gains-group
chmod 2755 /usr/bin/gains-group; useradd --uid 1000 ubuntu"""
ROOT = Identity(name="root", uid=0, gid=0)


@pytest.fixture
def engine(docker: Engine) -> Iterator[Engine]:
    """With a base that has a SUID program, an ordinary user's number taken, another user and an entry point."""
    if not docker("images", "--quiet", BASE):
        prepare(docker)
    yield docker


def prepare(engine: Engine) -> None:
    made = engine("run", "--detach", "--network", "none", IMAGE, "/bin/sh", "-c", PLANT)
    assert engine("wait", made) == "0", engine("logs", made)
    changes = ("USER nobody", 'ENTRYPOINT ["/bin/false"]', "ENV X=1")
    engine("commit", *[f"--change={change}" for change in changes], made, BASE)
    engine("rm", made)


def build(cloister: Cloister, engine: Engine, name: str, *options: str, base: str = BASE) -> tuple[str, str]:
    """Build one; what was printed to standard output and error."""
    cloister.extra_environment |= {**engine.environment, "GITHUB_TOKEN": "ghp_canary"}
    done = cloister(
        "image", "build", name, "--base", base, "--network", "host", "--runtime", engine.program, *options,
        timeout_s=BUILD_S,
    )  # fmt: skip
    assert done.code == 0, done
    return done.out.strip(), done.err


def inside(engine: Engine, image: str, script: str, *options: str) -> str:
    return engine("run", "--rm", "--network", "none", *options, image, "/bin/sh", "-c", f"{script}; true")


@pytest.mark.parametrize("name", BUILT)
def test_an_image(world: Callable[[Identity], Cloister], engine: Engine, name: str) -> None:
    reference, told = build(world(ROOT), engine, name)
    alias = f"cloister/{name}:latest"
    assert f"built: {alias}" in told
    (image,) = json.loads(engine("image", "inspect", reference))
    assert image["Id"] == json.loads(engine("image", "inspect", alias))[0]["Id"]
    assert image["Config"]["Labels"]["dev.cloister.image"] == name
    assert image["Config"]["User"] == "1000:1000" and not image["Config"]["Entrypoint"]
    history = engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", reference)
    assert "ghp_canary" not in history + json.dumps(image)
    assert "apt-get" in history, "the control: the history is what is read"
    rights = "find / -xdev -type f -perm /6000; command -v sudo; ls /var/lib/apt/lists; ls /usr/bin/gains-*"
    found = inside(engine, alias, rights, "--user", "0").split()
    assert found == ["/usr/bin/gains-group", "/usr/bin/gains-root"], "there, without their rights"
    before = inside(engine, BASE, rights, "--user", "0", "--entrypoint=").split()
    assert before.count("/usr/bin/gains-root") == 2, "the control: with them before"
    assert inside(engine, alias, "id -un; echo $HOME; touch x && rg --version | grep -c ripgrep").split() == [
        "agent",
        "/home/agent",
        "1",
    ]
    again, told = build(world(ROOT), engine, name)
    assert (again, told) == (reference, f"already built: {alias}\n")


CASES = {
    "python": (
        "python3 -m venv v && v/bin/pip install -q --no-index --no-build-isolation --find-links . evilsdist",
        ("--env", "PIP_ONLY_BINARY"),
    ),
    "ts": ("npm install --silent ./evil.tgz && ls node_modules", ("--env", "npm_config_ignore_scripts")),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_installed_is_not_run(
    world: Callable[[Identity], Cloister], engine: Engine, tmp_path: Path, name: str
) -> None:
    """In any container of the image, cloister's or not. `--env NAME` without a value takes the image's away."""
    build(world(ROOT), engine, name)
    (tmp_path / "evil.tgz").write_bytes(archive({"package/package.json": json.dumps(MANIFEST)}))
    information = "Metadata-Version: 2.1\nName: evilsdist\nVersion: 1.0\n"
    (tmp_path / "evilsdist-1.0.tar.gz").write_bytes(
        archive({"evilsdist-1.0/setup.py": SETUP, "evilsdist-1.0/PKG-INFO": information})
    )
    (tmp_path / "package.json").write_text('{"name": "p", "version": "1.0.0"}')
    install, allowed = CASES[name]
    script = (
        f"cp /given/* .; {install} >/dev/null 2>&1; test -e /tmp/the-script-ran && echo RAN || echo quiet"
    )
    given = ("--volume", f"{tmp_path}:/given:ro")
    tmp_path.chmod(0o755)
    assert inside(engine, f"cloister/{name}:latest", script, *given) == "quiet"
    assert inside(engine, f"cloister/{name}:latest", script, *given, *allowed) == "RAN"


def test_a_base_without_apt(world: Callable[[Identity], Cloister], engine: Engine) -> None:
    made = engine("run", "--detach", "--network", "none", IMAGE, "/bin/rm", "/usr/bin/apt-get")
    engine("wait", made)
    engine("commit", made, "images-without-apt")
    engine("rm", made)
    cloister = world(ROOT)
    cloister.extra_environment |= engine.environment
    done = cloister(
        "image", "build", "base", "--base", "images-without-apt", "--network", "host", timeout_s=BUILD_S
    )
    assert done.code == 125
    assert "the image 'base' could not be built: docker ended with code" in done.err
    assert "  cloister: this base has no apt-get\n" in done.err
    assert "→ give a base that is Debian or Ubuntu: --base debian:bookworm-slim" in done.err


WORKS = {
    "python": "python3 -m venv v && v/bin/python -c 'import ssl, sqlite3; print(1)'",
    "ts": "echo 'console.log(1)' > a.js && node a.js",
    "go": "printf 'module x\\ngo 1.19\\n' > go.mod; printf 'package main\\nfunc main() { println(1) }\\n' > m.go; go build -o x && ./x 2>&1",
    "rust": "cargo init -q --name x && sed -i 's/Hello, world!/1/' src/main.rs && cargo build -q && target/debug/x",
    "elixir": "mix new x >/dev/null && cd x && mix test 2>&1 | grep -c '0 failures'",
}


@pytest.mark.parametrize("name", [name for name in BUILT if name in WORKS])
def test_its_tools_work_offline(world: Callable[[Identity], Cloister], engine: Engine, name: str) -> None:
    build(world(ROOT), engine, name)
    assert inside(engine, f"cloister/{name}:latest", WORKS[name]) == "1"


REGISTRIES = (
    "pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "index.crates.io", "static.crates.io", "proxy.golang.org",
)  # fmt: skip
GO = 'package main\n\nimport "rsc.io/quote"\n\nfunc main() { println(quote.Go()) }\n'
CRATE = '[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nitoa = "=1.0.9"\n'
# What a project is made of, how its dependencies are installed, and what the program then prints.
PROJECTS = {
    "ts": (
        {
            "package.json": '{"name": "p", "version": "1.0.0"}',
            "m.js": "console.log(require('chalk/package.json').version)",
        },
        "npm install --silent --no-audit --no-fund chalk@4.1.2 && node m.js",
        "4.1.2",
    ),
    "python": (
        {"requirements.txt": "six==1.16.0\n", "m.py": "import six; print(six.__version__)"},
        "python3 -m venv v && v/bin/pip install -q -r requirements.txt && v/bin/python m.py",
        "1.16.0",
    ),
    "go": (
        {"go.mod": "module x\n\ngo 1.19\n\nrequire rsc.io/quote v1.5.2\n", "m.go": GO},
        "GONOSUMDB=rsc.io,golang.org go mod tidy 2>/dev/null; go build -o x && ./x 2>&1",
        "Don't communicate by sharing memory, share memory by communicating.",
    ),
    "rust": (
        {"Cargo.toml": CRATE, "src/main.rs": 'fn main() { println!("{}", itoa::Buffer::new().format(7)); }'},
        "cargo build -q && target/debug/x",
        "7",
    ),
}


def in_container(cloister: Cloister, engine: Engine, script: str) -> str:
    cloister.extra_environment |= {k: v for k, v in engine.environment.items() if k != "HOME"}
    done = cloister("run", "--runtime", "docker", "--", "/bin/sh", "-c", script, timeout_s=300)
    assert done.code == 0, done
    return done.out.strip()


@pytest.mark.registry
@pytest.mark.sandbox
@pytest.mark.parametrize("name", [name for name in BUILT if name in PROJECTS])
def test_real_packages_under_the_profile_registries(
    world: Callable[[Identity], Cloister], engine: Engine, name: str
) -> None:
    """In the image for the project's language, which is told by its files."""
    build(world(ROOT), engine, name)
    cloister = world(ROOT)
    cloister.configure('[sandbox]\nprofile = "registries"\n' + pins(REGISTRIES))
    files, script, printed = PROJECTS[name]
    for path, text in files.items():
        cloister.write(cloister.project / path, text)
    assert in_container(cloister, engine, script) == printed


@pytest.mark.sandbox
def test_an_opt_out_takes_away_what_the_image_says(
    world: Callable[[Identity], Cloister], engine: Engine
) -> None:
    build(world(ROOT), engine, "ts")
    cloister = world(ROOT)
    cloister.write(cloister.project / "package.json", '{"name": "p", "version": "1.0.0"}')
    (cloister.project / "evil.tgz").write_bytes(archive({"package/package.json": json.dumps(MANIFEST)}))
    script = "rm -rf node_modules; npm install --silent ./evil.tgz; test -e /tmp/the-script-ran && echo RAN || echo quiet; cat /etc/uv/uv.toml"
    assert in_container(cloister, engine, script).split("\n") == ["quiet", "no-build = true"]
    cloister.configure("[packages]\ninstall_scripts = true\nsdists = true\n")
    assert in_container(cloister, engine, script) == "RAN"
    ours = '[sandbox.env]\nPIP_ONLY_BINARY = "x"\n[packages]\nsdists = true\n'
    cloister.configure(ours)
    assert in_container(cloister, engine, "echo $PIP_ONLY_BINARY $UV_NO_BUILD") == "x", "the user's own stays"
    cloister.configure("[packages]\ninstall_scripts = true\nsdists = true\n")
    # Not reversed: the project may be stricter.
    cloister.write(cloister.project / ".npmrc", "ignore-scripts=true\n")
    assert in_container(cloister, engine, script) == "quiet"


@pytest.mark.skipif(not ALL, reason="a longer run: make images")
def test_full_has_all_of_them(world: Callable[[Identity], Cloister], engine: Engine) -> None:
    build(world(ROOT), engine, "full")
    for script in WORKS.values():
        assert inside(engine, "cloister/full:latest", script) == "1"


@pytest.mark.skipif(not ALL, reason="a longer run: make images")
def test_go_changes_no_requirement_by_itself(world: Callable[[Identity], Cloister], engine: Engine) -> None:
    """`-mod=readonly` is Go's own default: set, it would switch vendoring off (docs/adr/0060)."""
    build(world(ROOT), engine, "go")
    script = (
        "printf 'module x\\ngo 1.19\\n' > go.mod;"
        " printf 'package main\\nimport \"example.test/y\"\\nfunc main() { y.F() }\\n' > m.go; %s go build -o x 2>&1 || true; %s"
    )
    found = inside(engine, "cloister/go:latest", script % ("", "cat go.mod"))
    assert (
        "no required module provides package example.test/y" in found
        and "require" not in found.splitlines()[-1]
    )
    vendored = (
        "printf 'require example.test/y v1.0.0\\n' >> go.mod; mkdir -p vendor/example.test/y;"
        " printf 'package y\\nfunc F() { println(1) }\\n' > vendor/example.test/y/y.go;"
        " printf '# example.test/y v1.0.0\\n## explicit\\nexample.test/y\\n' > vendor/modules.txt;"
        " GOFLAGS=%s go build -o x 2>&1 && ./x 2>&1 || true"
    )
    assert inside(engine, "cloister/go:latest", script % ("true;", vendored % "")).splitlines()[-1] == "1"
    assert (
        inside(engine, "cloister/go:latest", script % ("true;", vendored % "-mod=readonly")).splitlines()[-1]
        != "1"
    )


@pytest.mark.skipif(not ALL, reason="a longer run: make images")
def test_a_tool_by_version(world: Callable[[Identity], Cloister], engine: Engine) -> None:
    """Through mise; from a registry, which may be behind an authority that this machine trusts."""
    tool = "go:golang.org/x/tools/cmd/stringer@0.1.12"  # the last for Debian's Go
    build(world(ROOT), engine, "go", "--tool", tool, "--ca", "/etc/ssl/certs/ca-certificates.crt")
    found = inside(
        engine,
        "cloister/go:latest",
        "stringer -h 2>&1 | head -1; find / -name ca.pem 2>/dev/null; command -v mise",
    )
    assert found == "Usage of stringer:"


@pytest.mark.skipif(not ALL, reason="a longer run: make images")
def test_podman_builds_it_too(world: Callable[[Identity], Cloister], podman: Engine) -> None:
    check_podman(world(ROOT), podman)


@pytest.mark.skipif(not ALL, reason="a longer run: make images")
def test_podman_of_an_ordinary_user_does(
    world: Callable[[Identity], Cloister],
    user: Identity,
    rootless_podman: Engine,
) -> None:
    check_podman(world(user), rootless_podman)


def check_podman(cloister: Cloister, engine: Engine) -> None:
    prepare(engine)
    reference, _ = build(cloister, engine, "base", base=f"localhost/{BASE}")
    (image,) = json.loads(engine("image", "inspect", reference))
    assert image["Config"]["User"] == "1000:1000"
    assert inside(engine, reference, "find / -xdev -type f -perm /6000 2>/dev/null; id -u") == "1000"
    assert build(cloister, engine, "base", base=f"localhost/{BASE}")[1].startswith("already built")
