#!/bin/bash
# Once, when the container starts: whatever is not an address of these names, now, is dropped.
set -euo pipefail

allowed=(
    bound.cloister-verify.test
    open.cloister-verify.test
    paths.cloister-verify.test
    judged.cloister-verify.test
    misnamed.cloister-verify.test
    expired.cloister-verify.test
    selfsigned.cloister-verify.test
    private.cloister-verify.test
    mixed.cloister-verify.test
    plain.cloister-verify.test
)

iptables -F OUTPUT
iptables -F INPUT
iptables -P INPUT DROP
iptables -P FORWARD DROP
iptables -P OUTPUT DROP
iptables -A INPUT -i lo -j ACCEPT
iptables -A OUTPUT -o lo -j ACCEPT
iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
iptables -A OUTPUT -m state --state ESTABLISHED,RELATED -j ACCEPT

# DNS: the container's resolver and no other.
while read -r keyword resolver _; do
    [[ $keyword == nameserver ]] || continue
    iptables -A OUTPUT -p udp -d "$resolver" --dport 53 -j ACCEPT
    iptables -A OUTPUT -p tcp -d "$resolver" --dport 53 -j ACCEPT
done </etc/resolv.conf

# The host, as the editor and its tools need it: its gateway's address alone, not the network.
gateway=$(ip route show default | awk '{ print $3; exit }')
iptables -A OUTPUT -d "$gateway" -j ACCEPT

for name in "${allowed[@]}"; do
    addresses=$(getent ahostsv4 "$name" | awk '{ print $1 }' | sort -u)
    [[ -n $addresses ]] || { echo "init-firewall: $name has no address" >&2; exit 1; }
    for address in $addresses; do
        iptables -A OUTPUT -d "$address" -j ACCEPT
    done
done
iptables -A OUTPUT -j REJECT --reject-with icmp-admin-prohibited

# No IPv6.
ip6tables -P INPUT DROP
ip6tables -P FORWARD DROP
ip6tables -P OUTPUT DROP
ip6tables -A INPUT -i lo -j ACCEPT
ip6tables -A OUTPUT -o lo -j ACCEPT

# The container's own description, against changes. Most file systems of containers, and most engines, do not allow it.
for file in /workspaces/*/.devcontainer/*; do
    chattr +i "$file" 2>/dev/null || echo "init-firewall: $file can be changed" >&2
done
