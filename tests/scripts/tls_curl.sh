#!/usr/bin/env bash
# https_server with curl: several requests on a connection, many connections, HEAD, and requests to reject.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash
need curl "$python"

for engine in $engines; do
  start "server_$engine" "$examples-$engine/https_server" 0 "$certificates/server.pem" "$certificates/server.key"
  port=$(printed_port "server_$engine")
  url=https://localhost:$port
  curl() { command curl --silent --show-error --max-time 20 --noproxy '*' "$@"; }
  ours() { curl --cacert "$ca" "$@"; }

  ours --http1.1 "$url/" >"$work/page"
  holds "$work/page" "method: GET"
  holds "$work/page" "path: /"
  holds "$work/page" "cipher: TLS_"
  [[ $engine != openssl ]] || holds "$work/page" "TLS version: TLSv1.3"
  ours --tls-max 1.2 "$url/pages/one?two=3" >"$work/page"
  holds "$work/page" "path: /pages/one?two=3"
  holds "$work/page" "TLS version: TLSv1.2"
  ours "https://127.0.0.1:$port/" >"$work/page"
  if has_ipv6; then ours "https://[::1]:$port/" >"$work/page"; fi

  # Three requests, one connection.
  ours --include --verbose "$url/" "$url/missing" --next --silent --include --cacert "$ca" --head "$url/pages/3" \
    >"$work/page" 2>"$work/verbose"
  [[ $(grep -ci 're-using existing' "$work/verbose") == 2 ]] || fail "not one connection: $(cat "$work/verbose")"
  [[ $(grep -c '^HTTP/1.1 200 OK' "$work/page") == 2 && $(grep -c '^HTTP/1.1 404 ' "$work/page") == 1 ]]
  [[ $(grep -c '^method' "$work/page") == 1 ]] # none for HEAD
  holds "$work/verbose" "ALPN: server accepted http/1.1"

  ours --parallel --parallel-max 20 "$url/pages/[1-20]" --output "$work/page_#1" 2>"$work/progress"
  for i in {1..20}; do holds "$work/page_$i" "path: /pages/$i"; done

  status() { ours --output "$work/page" --write-out '%{http_code}' "$@"; }
  [[ $(status "$url/") == 200 ]]
  [[ $(status --http1.0 --no-alpn "$url/") == 200 ]]
  [[ $(status --head "$url/") == 200 ]]
  [[ $(status "$url/nothing") == 404 ]]
  [[ $(status --data 'some=thing' "$url/") == 405 ]]
  [[ $(status --request DELETE "$url/") == 405 ]]
  [[ $(status --request 'NO METHOD' "$url/") == 400 ]]
  [[ $(status --header 'Host:' "$url/") == 400 ]]
  [[ $(status --header "Much: $(printf %20000s x)" "$url/") == 431 ]]

  # Requests that curl cannot write: which are answered, and what is sent in the Connection field (RFC 9112).
  "$python" - "$port" "$ca" <<'PYTHON'
import re, socket, ssl, sys

context = ssl.create_default_context(cafile=sys.argv[2])

def answers(head):
    """The statuses for a head with a plain request behind it, and what the first answer's Connection is."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            tls.sendall(head.encode("latin-1") + b"\r\n\r\nGET /pages/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = b""
            while piece := tls.recv(65536):
                text += piece
    said = re.search(rb"\r\nConnection: (\S*)", text.split(b"\r\n\r\n")[0])
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d+) ", text)], said[1].decode() if said else ""

def check(head, statuses, connection="close"):
    got = answers(head)
    assert got == (statuses, connection), (head, got)

check("GET / HTTP/1.1\r\nHost: x", [200, 200], "")
check("GET http://x HTTP/1.1\r\nHost: x\r\nContent-Length: 0", [200, 200], "")
check("GET HTTPS://x/pages/1 HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive, x", [200, 200], "")
check("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close", [200])
check("GET / HTTP/1.0", [200])
check("GET / HTTP/1.0\r\nConnection: keep-alive", [200, 200], "keep-alive")
check("GET /none HTTP/1.0\r\nConnection: x, Keep-Alive", [404, 200], "keep-alive")
check("OPTIONS * HTTP/1.1\r\nHost: x", [405, 200], "")
check("GET / HTTP/2.0\r\nHost: x", [505])
check("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", [501])
check("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", [405])
for fields in ("Host: y", "Content-Length: 0\r\nContent-Length: 0", "Content-Length: 1\r\nContent-Length: 2",
               "Content-Length: +0", "Content-Length : 0", "X : y", " X: y", "X: a\rb", "X: a\nb", "X: a\0b", "X\t: y",
               "Content-Length: 0\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked, gzip"):
    check("GET / HTTP/1.1\r\nHost: x\r\n" + fields, [400])
for line in ("G@T / HTTP/1.1", "GET / HTTP/1.1x", "GET x HTTP/1.1", "GET * HTTP/1.1", "GET http://me@x/ HTTP/1.1", "GET /"):
    check(line + "\r\nHost: x", [400])
PYTHON

  must_fail 60 "$work/complaint" curl "$url/"
  must_fail 60 "$work/complaint" curl --cacert "$certificates/other_ca.pem" "$url/"
  must_fail 60 "$work/complaint" curl --cacert "$ca" --connect-to "::localhost:$port" "https://elsewhere.example/"
  must_fail 35 "$work/complaint" ours --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 "$url/"
  # In clear text. How curl reports the answer, an alert and perhaps a reset, does not matter.
  if curl "http://localhost:$port/" 2>"$work/complaint"; then fail "was answered in clear"; fi
  eventually grep -q "is not TLS" "$work/server_$engine.err"
  ours "$url/" >"$work/page"
done
