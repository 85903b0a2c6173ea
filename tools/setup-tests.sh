#!/usr/bin/env bash
# What only the end-to-end tests need: npm and gh, where the machine has none, and an agent, Claude Code, from npm.
set -euo pipefail

install() { # PROGRAM PACKAGE…: the Debian packages, unless there is such a program
    local program=$1 sudo=()
    shift
    [[ ! -x /usr/bin/$program && ! -x /usr/local/bin/$program && ! -x /usr/sbin/$program ]] || return 0
    ((EUID == 0)) || sudo=(sudo)
    echo "setup-tests: installing $*"
    "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update -qq
    # What runs on this machine is not restarted for it.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >/dev/null
}

install npm nodejs npm
install gh gh
install ssh-agent openssh-client
# The container engines (tests/engines.py), and what makes the image that they run.
install dockerd docker.io iptables
install docker docker-cli # newer Debians have it apart
install podman podman uidmap slirp4netns fuse-overlayfs
install newuidmap uidmap
install mmdebstrap mmdebstrap
# Debian starts a server that it installs: CI's machine may have one, a developer's own is asked by a skipped test.
[[ -z ${CI-} ]] || install sshd openssh-server

claude_code=2.1.197
agents=$(dirname "$0")/../.cache/npm
if ! grep -qs "\"version\": \"$claude_code\"" "$agents/node_modules/@anthropic-ai/claude-code/package.json"; then
    echo "setup-tests: installing Claude Code $claude_code"
    mkdir -p "$agents"
    # Its one script puts the native program, another package, in its place: done here, where nothing else runs.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$agents" "@anthropic-ai/claude-code@$claude_code"
    (cd "$agents/node_modules/@anthropic-ai/claude-code" && node install.cjs)
fi

# inspect-ai, whose checks cloister passes as its sandbox, apart from what cloister is developed with.
inspect=$(dirname "$0")/../.cache/inspect
lock=$(dirname "$0")/../tests/inspect/requirements.lock
if ! cmp -s "$lock" "$inspect/installed.lock"; then
    echo "setup-tests: installing inspect-ai"
    "$(readlink -f "$(dirname "$0")/../.venv/bin/python")" -m venv --clear "$inspect"
    "$inspect/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    cp "$lock" "$inspect/installed.lock"
fi
