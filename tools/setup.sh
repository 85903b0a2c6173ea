#!/usr/bin/env bash
# Install what cloister and its tests need: Debian or Ubuntu packages where they are missing, then a virtual
# environment with the locked Python packages. Usage: tools/setup.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

packages=(bubblewrap iproute2 libseccomp2 python3 python3-venv git curl ca-certificates openssl procps util-linux)

missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
fi
if ((${#missing[@]})); then
    sudo=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || { echo "setup: these packages are missing: ${missing[*]}; install them as root" >&2; exit 1; }
        sudo=(sudo)
    fi
    echo "setup: installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The system's interpreter, if it is new enough: the tests run as an ordinary user too, who cannot read an interpreter
# that lives in root's home.
python=
for candidate in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[[ -n $python ]] || { echo "setup: Python 3.11 or newer is needed" >&2; exit 1; }

[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$venv/bin/pip" install --quiet --require-hashes -r requirements-dev.lock
"$venv/bin/pip" install --quiet --no-deps --no-build-isolation --editable .
