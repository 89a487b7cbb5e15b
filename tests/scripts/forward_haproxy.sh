#!/usr/bin/env bash
# The PROXY protocol of the forwarder with HAProxy on both sides, in each version: the server, HAProxy, learns the
# client's address, also from a header that HAProxy has sent, with extensions and as a health check.
source "$(dirname "$0")/lib.bash"
PATH=$PATH:/usr/sbin
need "$python" haproxy

# Servers: each answers with the addresses of the connection as it knows them.
server=$(free_port) front=()
for n in 0 1; do
  front[n]=$(free_port)
done
declare -A forwarder
for version in v1 v2; do
  start "to_$version" "$examples/forward" --send-proxy "$version" 127.0.0.1:0 "127.0.0.1:$server"
  start "through_$version" "$examples/forward" --accept-proxy --send-proxy "$version" 127.0.0.1:0 "127.0.0.1:$server"
done
for name in to_v1 to_v2 through_v1 through_v2; do
  eventually grep -qs '^listening on ' "$work/$name"
  forwarder[$name]=$(sed -n 's/^listening on 127.0.0.1://p' "$work/$name")
done

cat >"$work/haproxy.cfg" <<CONFIG
global
  log stdout format raw daemon
defaults
  log global
  timeout connect 10s
  timeout check 10s
  timeout client 20s
  timeout server 20s
frontend server
  mode http
  bind 127.0.0.1:$server accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
# HAProxy as the client of the forwarder: version 1 into 2, and 2 into 1.
listen front1
  mode tcp
  bind 127.0.0.1:${front[0]}
  server forwarder 127.0.0.1:${forwarder[through_v2]} send-proxy
listen front2
  mode tcp
  bind 127.0.0.1:${front[1]}
  option httpchk
  option log-health-checks
  server forwarder 127.0.0.1:${forwarder[through_v1]} send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 100ms
  unique-id-format %{+X}o\ %ci:%cp
CONFIG
start haproxy haproxy -db -f "$work/haproxy.cfg"
for port in "$server" "${front[@]}"; do eventually tcp_listens "$port"; done

"$python" - "${forwarder[to_v1]}" "${forwarder[to_v2]}" "${front[@]}" <<'PYTHON'
import socket, sys, time

def told(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: s.recv(4096), b""))
        return answer.split(b"\r\n\r\n")[-1].decode(), "127.0.0.1 %d 127.0.0.1 %d" % (*s.getsockname()[1:], port)

for port in map(int, sys.argv[1:]):
    for _ in range(20):
        got, expected = told(port)
        assert got == expected, (port, got, expected)
PYTHON
# Health checks pass through the forwarder with a header that names no client. They end with a reset.
eventually grep -q 'Health check for server front2/forwarder succeeded' "$work/haproxy"
! grep -q 'failed' "$work/haproxy" || fail "health checks fail"
! grep -v 'ECONNRESET' "$work/through_v1.err" || fail "the forwarder complains"
