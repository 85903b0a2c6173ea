#!/usr/bin/env bash
# Renew the lock files. No index host is written: the lock says what, the installer's own settings say from where.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
compile=("$venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host
    --no-emit-find-links --no-header --resolver=backtracking)
"${compile[@]}" --output-file requirements.lock pyproject.toml
"$venv/bin/python" - <<'PYTHON' >.dev-requirements.in
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print("\n".join(project["dependency-groups"]["dev"] + project["build-system"]["requires"] + ["editables"]))
PYTHON
trap 'rm -f .dev-requirements.in' EXIT
"${compile[@]}" --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml .dev-requirements.in
