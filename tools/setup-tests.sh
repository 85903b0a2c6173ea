#!/usr/bin/env bash
# What only the end-to-end tests need: npm and gh, where the machine has none, and an agent, Claude Code, from npm.
set -euo pipefail
if [[ ! -x /usr/bin/npm && ! -x /usr/local/bin/npm ]]; then
    sudo=()
    ((EUID == 0)) || sudo=(sudo)
    echo "setup-tests: installing npm"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
if [[ ! -x /usr/bin/gh && ! -x /usr/local/bin/gh ]]; then
    sudo=()
    ((EUID == 0)) || sudo=(sudo)
    echo "setup-tests: installing gh"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gh >/dev/null
fi
claude_code=2.1.197
agents=$(dirname "$0")/../.cache/npm
if ! grep -qs "\"version\": \"$claude_code\"" "$agents/node_modules/@anthropic-ai/claude-code/package.json"; then
    echo "setup-tests: installing Claude Code $claude_code"
    mkdir -p "$agents"
    # Its one script puts the native program, another package, in its place: done here, where nothing else runs.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$agents" "@anthropic-ai/claude-code@$claude_code"
    (cd "$agents/node_modules/@anthropic-ai/claude-code" && node install.cjs)
fi
