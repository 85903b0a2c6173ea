"""Installing does not run what it installs, unless the configuration says so: with the real package managers."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tests.e2e.test_registries import registries  # noqa: F401  # a fixture
from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(600)]

MARK = "/tmp/the-script-ran"
MANIFEST = {"name": "evil", "version": "1.0.0", "scripts": {"postinstall": f"echo x > {MARK}"}}
SETUP = f"open({MARK!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='evilsdist', version='1.0')\n"
TELL = f"; test -e {MARK} && echo RAN || echo quiet"
# Everything by which a repository can ask for it.
HOSTILE = {
    "package.json": json.dumps(
        {
            "name": "p",
            "version": "1.0.0",
            "private": True,
            "dependencies": {"evil": "file:./evil.tgz"},
            "trustedDependencies": ["evil"],
            "allowScripts": {"evil": True},
            "pnpm": {"onlyBuiltDependencies": ["evil"]},
        }
    ),
    ".npmrc": "ignore-scripts=false\n",
    ".yarnrc": "ignore-scripts false\n",
    ".yarnrc.yml": "enableScripts: true\n",
}


def archive(files: dict[str, str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return target.getvalue()


@pytest.fixture
def hostile(user_cloister: Cloister) -> Cloister:
    for name, text in HOSTILE.items():
        user_cloister.write(user_cloister.project / name, text)
    package = user_cloister.project / "evil.tgz"
    package.write_bytes(archive({"package/package.json": json.dumps(MANIFEST)}))
    sdist = user_cloister.directory(user_cloister.project / "index") / "evilsdist-1.0.tar.gz"
    information = "Metadata-Version: 2.1\nName: evilsdist\nVersion: 1.0\n"
    sdist.write_bytes(archive({"evilsdist-1.0/setup.py": SETUP, "evilsdist-1.0/PKG-INFO": information}))
    user_cloister.own(package), user_cloister.own(sdist)
    return user_cloister


NPM = "npm install --silent --no-audit --no-fund"
PIP = "python3 -m venv v && v/bin/pip install -q --no-index --no-build-isolation --find-links index evilsdist"


def test_npm_runs_no_script_of_a_package(hostile: Cloister) -> None:
    done = hostile.sh(f"{NPM} && ls node_modules {TELL}", timeout_s=120)
    assert done.out.split() == ["evil", "quiet"], done
    one = hostile.sh(f"{NPM} && npm rebuild evil --ignore-scripts=false >/dev/null {TELL}", timeout_s=120)
    assert one.out.split() == ["RAN"], one


def test_npm_runs_it_where_that_is_configured(hostile: Cloister) -> None:
    hostile.configure("[packages]\ninstall_scripts = true\n")
    done = hostile.sh(f"{NPM} {TELL}", timeout_s=120)
    assert done.out.split() == ["RAN"], done
    # Not set to the opposite: the project's own word counts.
    hostile.write(hostile.project / ".npmrc", "ignore-scripts=true\n")
    done = hostile.sh(f"rm -rf node_modules; {NPM} {TELL}", timeout_s=120)
    assert done.out.split() == ["quiet"], done


def test_a_project_does_not_opt_out_by_itself(hostile: Cloister) -> None:
    hostile.write(hostile.project / "cloister.toml", "[packages]\ninstall_scripts = true\n")
    done = hostile.sh(f"{NPM} {TELL}", timeout_s=120)
    assert done.code == 125
    assert "cloister trust" in done.err


def test_pip_builds_no_sdist(hostile: Cloister) -> None:
    done = hostile.sh(f"{PIP} {TELL}", timeout_s=120)
    assert done.out.split() == ["quiet"], done
    one = hostile.sh(f"{PIP} --no-binary evilsdist {TELL}", timeout_s=120)
    assert one.out.split() == ["RAN"], one


def test_pip_builds_it_where_that_is_configured(hostile: Cloister) -> None:
    hostile.configure("[packages]\nsdists = true\n")
    done = hostile.sh(f"{PIP} {TELL}", timeout_s=120)
    assert done.out.split() == ["RAN"], done


@pytest.mark.registry
def test_other_managers_run_nothing_either(hostile: Cloister, registries: Cloister) -> None:  # noqa: F811
    script = f"""set -e; mkdir -p ~/t && cd ~/t && echo '{{}}' > package.json
    npm install --silent --no-audit --no-fund pnpm@9 yarn@1 yarn4@npm:@yarnpkg/cli-dist@4 >/dev/null
    python3 -m venv v && v/bin/pip install -q --no-cache-dir uv
    cd "$OLDPWD"
    fresh() {{ rm -rf node_modules *lock* {MARK}; }}
    tell() {{ test ! -e {MARK} && echo "$1 quiet" || echo "$1 RAN"; }}
    fresh; ~/t/node_modules/.bin/pnpm install --silent >/dev/null; ls node_modules; tell pnpm
    fresh; ~/t/node_modules/yarn/bin/yarn.js install --silent >/dev/null 2>&1; ls node_modules; tell yarn1
    fresh; touch yarn.lock; node ~/t/node_modules/yarn4/bin/yarn.js install >/dev/null; tell yarn4
    ~/t/v/bin/uv -q venv u; fresh
    VIRTUAL_ENV=u ~/t/v/bin/uv -q pip install --find-links index evilsdist 2>/dev/null || true; tell uv-pip
    printf '[project]\\nname="x"\\nversion="0"\\nrequires-python=">=3.9"\\ndependencies=["evilsdist"]\\n' > pyproject.toml
    fresh; ~/t/v/bin/uv -q sync --find-links index 2>/dev/null || true; tell uv-sync"""
    done = registries.sh(script, timeout_s=400)
    quiet = [f"{name} quiet" for name in ("pnpm", "yarn1", "yarn4", "uv-pip", "uv-sync")]
    assert [line for line in done.out.splitlines() if line != "evil"] == quiet, done
    assert done.out.count("evil\n") == 2, "the control: the package was installed"
