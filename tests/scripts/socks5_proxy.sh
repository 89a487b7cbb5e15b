#!/usr/bin/env bash
# The SOCKS5 proxy with curl: names, IPv4, IPv6, passwords, refusals, 200 MB, 200 clients at once, clients that
# are killed. In the end it has as many descriptors open as in the beginning.
source "$(dirname "$0")/lib.bash"
need "$python" curl

"$examples/socks5_proxy" --help | grep -q '^usage: socks5_proxy'
for wrong in '' 'x' '1 user' '1 a:b c' '99999'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/socks5_proxy" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

mkdir "$work/www"
head -c 200000000 /dev/urandom >"$work/www/large"
echo 'through the proxy' >"$work/www/small"
cat >"$work/web.py" <<'PYTHON'
import http.server, os, socket, sys

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
    request_queue_size = 512

    def handle_error(self, request, client_address):
        pass  # clients are killed

os.chdir(sys.argv[1])
server = Server((sys.argv[2], 0), http.server.SimpleHTTPRequestHandler)
print("listening on port", server.server_port, flush=True)
server.serve_forever()
PYTHON
start web "$python" "$work/web.py" "$work/www" 127.0.0.1
web=$(printed_port web)
start proxy "$examples/socks5_proxy" 0
proxy_process=${servers[-1]}
proxy=$(printed_port proxy)
start guarded "$examples/socks5_proxy" 0 'ann:se:cret'
guarded=$(printed_port guarded)

open_descriptors() { find "/proc/$proxy_process/fd" -mindepth 1 | wc -l; }
before=$(open_descriptors)

get() { curl --silent --show-error --max-time 30 --noproxy '' "$@"; }
expect <(get --proxy "socks5://127.0.0.1:$proxy" "http://127.0.0.1:$web/small") 'through the proxy\n'
expect <(get --proxy "socks5h://127.0.0.1:$proxy" "http://localhost:$web/small") 'through the proxy\n'
if has_ipv6; then
  start web6 "$python" "$work/web.py" "$work/www" ::1
  expect <(get --proxy "socks5h://127.0.0.1:$proxy" "http://[::1]:$(printed_port web6)/small") 'through the proxy\n'
fi

# A password is asked for, and must be right.
expect <(get --proxy "socks5h://ann:se%3Acret@127.0.0.1:$guarded" "http://localhost:$web/small") 'through the proxy\n'
for wrong in 'ann:secret@' ':se%3Acret@' 'ann:@' ''; do
  ! get --proxy "socks5h://${wrong}127.0.0.1:$guarded" "http://localhost:$web/small" 2>/dev/null || fail "'$wrong' may pass"
done

# What cannot be reached is refused with a reason (RFC 1928).
status=0
get --proxy "socks5h://127.0.0.1:$proxy" "http://127.0.0.1:$(free_port)/" 2>"$work/refused" || status=$?
((status == 97)) && grep -q '(5)' "$work/refused" || fail "refused: $status, $(cat "$work/refused")"

[[ $(get --proxy "socks5h://127.0.0.1:$proxy" "http://127.0.0.1:$web/large" | sha256sum) == \
  $(sha256sum <"$work/www/large") ]] || fail "200 MB did not arrive as they were sent"

get --parallel --parallel-immediate --parallel-max 200 --proxy "socks5h://127.0.0.1:$proxy" \
  -o "$work/small.#1" "http://127.0.0.1:$web/small?[1-200]" 2>/dev/null
for n in {1..200}; do same "$work/www/small" "$work/small.$n"; done

clients=()
for n in {1..10}; do
  curl --silent --limit-rate 10k --noproxy '' --proxy "socks5h://127.0.0.1:$proxy" -o "$work/slow.$n" \
    "http://127.0.0.1:$web/large" &
  clients+=("$!")
done
has_open() { (($(open_descriptors) - before "$@")); }
eventually has_open '>=' 20
kill -9 "${clients[@]}"
wait "${clients[@]}" 2>/dev/null || true
eventually has_open '==' 0

# Clients that break the protocol, or say nothing, block no one.
"$python" - "$proxy" <<'PYTHON'
import socket, sys

def ask(*messages):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as s:
        for m in messages:
            s.sendall(m)
        s.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := s.recv(100):
                answer += part
        except ConnectionResetError:
            pass
        return answer

assert ask(b"") == b""
assert ask(b"\4\1\0\120\0\0\0\0") == b""                       # SOCKS4
assert ask(b"\5\1\2") == b"\5\xff"                             # offers only passwords
assert ask(b"\5\1\0\5\2\0\1\0\0\0\0\0\0")[:4] == b"\5\0\5\7"   # BIND
assert ask(b"\5\1\0\5\1\0\7\0\0")[:4] == b"\5\0\5\10"          # an unknown kind of address
assert ask(b"\5\1\0\5\1") == b"\5\0"                           # ends within the request
PYTHON
eventually has_open '==' 0
