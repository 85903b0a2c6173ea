#!/usr/bin/env bash
# `make demo`: a scripted agent in a sandbox. Everything happens in a scratch directory with a home, a configuration and
# a project of its own, which is removed at the end. Exits non-zero if any step does not go as claimed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v cloister >/dev/null || { echo "demo: cloister is not on PATH; run: make demo" >&2; exit 1; }

scratch=$(mktemp -d /var/tmp/cloister-demo-XXXXXX)
origin=
trap 'if [[ -n $origin ]]; then kill "$origin"; fi; rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
export HOME=$scratch/home
export XDG_CONFIG_HOME=$HOME/.config XDG_STATE_HOME=$HOME/.local/state XDG_CACHE_HOME=$HOME/.cache XDG_DATA_HOME=$HOME/.local/share
project=$HOME/widget
mkdir -p "$project" "$HOME/.ssh" "$XDG_CONFIG_HOME/cloister"

if [[ -t 1 ]]; then export CLICOLOR_FORCE=1; bold=$'\033[1m' green=$'\033[32m' red=$'\033[31m' dim=$'\033[2m' off=$'\033[0m'; else bold='' green='' red='' dim='' off=''; fi
say() { printf '%s%s%s\n' "$dim" "$1" "$off"; }
fail() { printf '%s✗ %s%s\n' "$red" "$1" "$off"; exit 1; }

secret="PRIVATE KEY $RANDOM$RANDOM"
printf '%s\n' "-----BEGIN $secret-----" >"$HOME/.ssh/id_ed25519"
chmod 600 "$HOME/.ssh/id_ed25519"
git init --quiet "$project"
cp "$here/agent.sh" "$project/agent.sh"
echo "the plans for the widget" >"$project/notes.txt"

# Where a registry's name resolves to an address that is not public (a mirror behind split-horizon DNS), cloister refuses
# it unless the user's own configuration pins it.
pins=$(python3 - pypi.org files.pythonhosted.org <<'END'
import ipaddress, socket, sys
for name in sys.argv[1:]:
    try:
        addresses = [entry[4][0] for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)]
    except OSError as error:
        sys.exit(f"demo: {name} does not resolve here ({error}); the demo needs PyPI")
    if not ipaddress.ip_address(addresses[0]).is_global:
        print(f'"{name}" = "{addresses[0]}:443"')
END
)

# An outside world of the demo's own: an API that wants a token, and a git server. The agent gets a placeholder.
export DEMO_TOKEN="real-token-$RANDOM$RANDOM$RANDOM$RANDOM"
world=$scratch/world
mkdir -p "$world/git"
git init --quiet --bare --initial-branch=main "$world/git/widget.git"
git -C "$world/git/widget.git" config http.receivepack true
python3=$(dirname "$(command -v cloister)")/python3
[[ -x $python3 ]] || python3=python3
mkfifo "$world/port"
"$python3" "$here/origin.py" "$world" &
origin=$!
read -r -t 20 port <>"$world/port" || fail "the demo's origin did not start"
config=$XDG_CONFIG_HOME/cloister/config.toml
cat >"$config" <<END
[network]
upstream_ca = ["$world/ca.pem"]

[[credential]]                          # the value stays outside: the gateway puts it into requests to these hosts
name = "demo-api"
source = "env:DEMO_TOKEN"
hosts = ["api.demo.example"]
inject = "bearer"
env = "DEMO_API_KEY"                    # what the sandbox sees here is a placeholder

[[credential]]
name = "demo-git"
source = "env:DEMO_TOKEN"
hosts = ["git.demo.example"]
inject = "basic:x-access-token"

[git]
push = ["refs/heads/agent/*"]

[network.hosts]                         # this machine plays the outside world
"api.demo.example" = "127.0.0.1:$port"
"git.demo.example" = "127.0.0.1:$port"
END
if [[ -n $pins ]]; then
    printf '%s\n' "$pins" >>"$config"
    say "(This network's PyPI has an address that is not public. cloister refuses those, so the demo's user pins it.)"
fi
printf '%s$ cat ~/.config/cloister/config.toml%s\n' "$bold" "$off"
sed "s/^/    /; s#$scratch#…#" "$config"

cd "$project"
printf '%s$ cloister run -- sh agent.sh%s\n' "$bold" "$off"
code=0
cloister run -- sh agent.sh | tee "$scratch/output" || code=${PIPESTATUS[0]}
((code == 0)) || fail "the agent reports $code step(s) that did not go as claimed (or could not start)"

# What the sandbox says about itself is one thing; what the host finds afterwards is another.
grep -qF "$secret" -r "$scratch/output" "$project" && fail "the key has left the home"
[[ ! -e $project/.git/hooks/pre-commit ]] || fail "there is a hook on the host"
grep -qF "$DEMO_TOKEN" -r "$scratch/output" "$HOME" && fail "the token has come into the sandbox's files or output"
refs=$(git -C "$world/git/widget.git" for-each-ref --format='%(refname)')
[[ $refs == refs/heads/agent/fix ]] || fail "the git server has other refs than refs/heads/agent/fix: $refs"

printf '\n%s$ cloister logs%s\n' "$bold" "$off"
cloister logs
cloister logs --json --refused | grep -q '"host":"exfil.example.net"' || fail "the refusal is not in the log"
cloister logs --json | grep -q '"event":"connect".*"host":"files.pythonhosted.org"' || fail "the download is not in the log"
cloister logs --json | grep -q '"event":"alarm".*placeholder' || fail "the alarm is not in the log"
printf '\n%s$ cloister secret list%s\n' "$bold" "$off"
cloister secret list
printf '\n%s✓ every step went as claimed%s\n' "$green" "$off"
