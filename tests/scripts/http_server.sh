#!/usr/bin/env bash
# The HTTP server with curl, wrk and netcat: files of all sizes, missing ones, kept and pipelined connections,
# requests that are wrong in many ways, Ctrl-C.
source "$(dirname "$0")/lib.bash"
need curl "$python"
need_netcat

"$examples/http_server" --help | grep -q '^usage: http_server'
for wrong in '' '.' '. x' '. 1 2' '. 99999'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/http_server" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done
status=0
"$examples/http_server" "$work/none" 0 2>"$work/err" || status=$?
((status == 1)) && grep -q 'No such file' "$work/err" || fail "no folder: exit code $status"

www=$work/www
mkdir -p "$www/sub folder"
echo '<p>hello' >"$www/index.html"
echo 'in a folder' >"$www/sub folder/a%b.txt"
: >"$www/empty.txt"
random_file 16 "$www/large.bin"
echo secret >"$work/secret"
ln -s ../secret "$www/link"
mkfifo "$www/pipe"

start server "$examples/http_server" "$www" 0
port=$(printed_port server)
url=http://127.0.0.1:$port
get() { curl --silent --show-error --max-time 20 "$@"; }

[[ $(get "$url/") == '<p>hello' ]]
[[ $(get "$url/?query#part") == '<p>hello' ]]
[[ $(get "$url/sub%20folder/a%25b.txt") == 'in a folder' ]]
get "$url/large.bin" -o "$work/large"
same "$www/large.bin" "$work/large"
[[ $(get -w '%{http_code} %{content_type} %{size_download}' "$url/empty.txt") == '200 text/plain 0' ]]
[[ $(get --head "$url/large.bin" | tr -d '\r' | grep '^Content-Length') == 'Content-Length: 16777216' ]]
[[ $(get --http1.0 "$url/") == '<p>hello' ]]

for path in none link pipe 'sub%20folder' ../secret %2e%2e/secret 'sub%20folder/../../secret' index.html/x a%00b %zz %; do
  code=$(get --path-as-is -o /dev/null -w '%{http_code}' "$url/$path")
  [[ $code == 404 ]] || fail "$path: status $code"
done
[[ $(get -o /dev/null -w '%{http_code}' -d body "$url/") == 405 ]]

# One connection for all of them, including a rejected request with a body.
[[ $(get -w '%{num_connects}' -o /dev/null "$url/" --next -w '%{num_connects}' --max-time 20 -s -o /dev/null -d body "$url/" \
  --next -w '%{num_connects}' --max-time 20 -s -o /dev/null "$url/none") == 100 ]] || fail "connections are not kept"

answers() { # the answer to these bytes: the status lines, in order
  printf "$1" | timeout 20 nc -N 127.0.0.1 "$port" | tr -d '\r' | grep -a '^HTTP/' | cut -d' ' -f2 | paste -sd' '
}
req='GET / HTTP/1.1\r\nHost: x\r\n\r\n'
[[ $(answers "$req$req$req") == '200 200 200' ]] || fail "pipelining"
[[ $(answers "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n$req") == 200 ]] || fail "Connection: close is ignored"
# Each of these is rejected, and later requests on the connection are not answered (RFC 9112).
for line in 'rubbish' 'GET /' 'GET / HTTP/1.1 ' 'GET  / HTTP/1.1' 'GET / HTTP/1.1x' 'GET / HTTP/1' 'GET / http/1.1' \
  'GET / x HTTP/1.1' ' / HTTP/1.1' 'G@T / HTTP/1.1' 'GET /\t HTTP/1.1' 'GET /\x7f HTTP/1.1' 'GET /\0 HTTP/1.1' \
  'GET x HTTP/1.1' 'GET * HTTP/1.1' 'GET http:// HTTP/1.1' 'GET http:///x HTTP/1.1' 'GET http://me@x/ HTTP/1.1' \
  'GET ftp://x/ HTTP/1.1' 'CONNECT /x HTTP/1.1'; do
  [[ $(answers "$line\r\nHost: x\r\n\r\n$req") == 400 ]] || fail "first line: $line"
done
for fields in 'X: y' 'Host: x\r\nHost: x' 'Host: x\r\nhost: y' 'Host : x' 'Host: x y' 'Host: me@x' 'Host: x/' 'Host: x:y' \
  ' Host: x' 'Host: x\r\n more' 'Host: x\r\n\tmore' 'Host: x\r\nX' 'Host: x\r\n: y' 'Host: x\r\nX y: z' 'Host: x\r\nX(: y' \
  'Host: x\r\nX\t: y' 'Host: x\r\nX: a\rb' 'Host: x\r\nX: a\nb' 'Host: x\r\nX: a\0b' 'Host: x\r\nX: \x1b[2J'; do
  [[ $(answers "GET / HTTP/1.1\r\n$fields\r\n\r\n$req") == 400 ]] || fail "fields: $fields"
done
[[ $(answers "GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n$req") == 400 ]] || fail "two Hosts by HTTP/1.0"
for fields in 'Content-Length: 0\r\nContent-Length: 0' 'Content-Length: 1\r\ncontent-length: 2' 'Content-Length: 0, 0' \
  'Content-Length : 0' 'Content-Length:' 'Content-Length: 1x' 'Content-Length: -1' 'Content-Length: +1' \
  'Content-Length: 0x1' 'Content-Length: 1 1' 'Content-Length: 99999999999999999999999' 'Content-Length: 0\r\n 1' \
  'Transfer-Encoding: chunked\r\nContent-Length: 5' 'Content-Length: 5\r\nTransfer-Encoding: chunked' \
  'Transfer-Encoding : chunked' 'Transfer-Encoding: xchunked' 'Transfer-Encoding: chunked, gzip' 'Transfer-Encoding:' \
  'Transfer-Encoding: chunked, chunked' 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked'; do
  [[ $(answers "POST / HTTP/1.1\r\nHost: x\r\n$fields\r\n\r\n0\r\n\r\n$req") == 400 ]] || fail "length: $fields"
done
[[ $(answers "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$req") == 400 ]] || fail "chunked by HTTP/1.0"
for fields in 'Transfer-Encoding: chunked' 'Transfer-Encoding: Chunked' 'Transfer-Encoding: gzip, chunked'; do
  [[ $(answers "POST / HTTP/1.1\r\nHost: x\r\n$fields\r\n\r\n0\r\n\r\n$req") == 501 ]] || fail "$fields"
done
for version in 0.9 2.0; do
  [[ $(answers "GET / HTTP/$version\r\nHost: x\r\n\r\n$req") == 505 ]] || fail "version $version"
done
# And each of these is answered, as is the request after it.
for line in 'GET http://x/ HTTP/1.1' 'GET HTTP://[::1]:80 HTTP/1.1' 'GET https://other.example?x HTTP/1.1' '\r\nGET / HTTP/1.1' \
  'GET / HTTP/1.2'; do
  [[ $(answers "$line\r\nHost: x\r\n\r\n$req") == '200 200' ]] || fail "first line: $line"
done
for fields in 'Host:' 'Host: [::1]:80' 'Host: x:' 'hOST:\tx:80\t ' 'Host: x\r\nX:' 'Host: x\r\nX: \xfc\tz' \
  'Host: x\r\nContent-Length: 0' 'Host: x\r\nConnection: Keep-Alive, closed' 'Host: x\r\nConnection:'; do
  [[ $(answers "GET / HTTP/1.1\r\n$fields\r\n\r\n$req") == '200 200' ]] || fail "fields: $fields"
done
[[ $(answers "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n$req") == '405 200' ]] || fail "OPTIONS"
[[ $(answers "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc$req") == '405 200' ]] || fail "a body"
# A client that waits for "100 Continue" has not sent its body when it gets another answer.
[[ $(answers "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n$req") == 405 ]] || fail "Expect"
for fields in 'Connection: close' 'Connection: Close' 'Connection: x, CLOSE' 'Connection: close, keep-alive' \
  'Connection: x\r\nConnection: close'; do
  [[ $(answers "GET / HTTP/1.1\r\nHost: x\r\n$fields\r\n\r\n$req") == 200 ]] || fail "$fields"
done
for fields in 'X: y' 'Connection: k' 'Connection: close' 'Connection: keep-alive, close'; do
  [[ $(answers "GET / HTTP/1.0\r\n$fields\r\n\r\n$req") == 200 ]] || fail "HTTP/1.0: $fields"
done
for fields in 'Connection: keep-alive' 'Connection: x, Keep-Alive' 'Connection: x\r\nConnection: keep-alive'; do
  [[ $(answers "GET / HTTP/1.0\r\n$fields\r\n\r\n$req") == '200 200' ]] || fail "HTTP/1.0: $fields"
done
connection() { # the Connection field of the answer to this request
  printf "$1" | timeout 20 nc -N 127.0.0.1 "$port" | tr -d '\r' | sed -n 's/^Connection: //p' | paste -sd' '
}
for path in / /none; do
  [[ $(connection "GET $path HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") == keep-alive ]] || fail "HTTP/1.0 is not kept"
  [[ $(connection "HEAD $path HTTP/1.0\r\n\r\n") == close ]] || fail "HTTP/1.0 is kept"
  [[ -z $(connection "GET $path HTTP/1.1\r\nHost: x\r\n\r\n") ]] || fail "HTTP/1.1 sends a default Connection field"
done
[[ $(answers "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n") == 413 ]] || fail "too long a body"
[[ $(answers "GET / HTTP/1.1\r\nHost: $(printf 'x%.0s' {1..20000})\r\n\r\n") == 431 ]] || fail "too long a head"

if command -v wrk >/dev/null; then
  wrk -t1 -c32 -d1s "$url/" >"$work/wrk"
  ! grep -E 'Socket errors|Non-2xx' "$work/wrk" || fail "wrk sees errors"
  grep -q 'requests in' "$work/wrk"
fi

"$python" - "$examples/http_server" "$www" <<'PYTHON'
import signal, socket, subprocess, sys

p = subprocess.Popen([sys.argv[1], sys.argv[2], "0"], stdout=subprocess.PIPE, text=True)
port = int(p.stdout.readline().split()[-1])
s = socket.create_connection(("127.0.0.1", port), timeout=20)
s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
assert s.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
p.send_signal(signal.SIGINT)  # this client keeps its connection, and the server does not wait long for it
assert p.wait(timeout=20) == 0
PYTHON
