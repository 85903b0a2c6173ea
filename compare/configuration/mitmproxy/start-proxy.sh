#!/bin/bash
# The proxy as root, its authority trusted, and the firewall: nothing but loopback and root's own traffic leaves.
set -euo pipefail

if ! pgrep -u root -f mitmdump >/dev/null; then
    cd /
    PYTHONPATH=/opt/mitmproxy setsid nohup python3 -c 'from mitmproxy.tools.main import mitmdump; mitmdump()' \
        --listen-host 127.0.0.1 --listen-port 8080 --set confdir=/etc/mitmproxy-certs \
        --set ssl_verify_upstream_trusted_ca=/etc/laboratory.crt \
        --scripts /etc/proxy-secrets/proxy-addon.py >/var/log/proxy/flows.log 2>&1 </dev/null &
fi
for _ in {1..300}; do
    (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null && break
    sleep 0.1
done

cp /etc/mitmproxy-certs/mitmproxy-ca-cert.pem /usr/local/share/ca-certificates/mitmproxy.crt
update-ca-certificates >/dev/null

iptables -F OUTPUT
iptables -A OUTPUT -o lo -j ACCEPT
iptables -A OUTPUT -m owner --uid-owner 0 -j ACCEPT
iptables -A OUTPUT -j REJECT
ip6tables -F OUTPUT
ip6tables -A OUTPUT -o lo -j ACCEPT
ip6tables -A OUTPUT -m owner --uid-owner 0 -j ACCEPT
ip6tables -A OUTPUT -j REJECT
