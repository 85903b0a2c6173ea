#!/usr/bin/env bash
# What only the end-to-end tests need: npm, where the machine has none.
set -euo pipefail
if [[ ! -x /usr/bin/npm && ! -x /usr/local/bin/npm ]]; then
    sudo=()
    ((EUID == 0)) || sudo=(sudo)
    echo "setup-tests: installing npm"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
