#!/usr/bin/env bash
# The HTTP server with curl, wrk and netcat: files of all sizes, what is not to be had, kept and pipelined
# connections, requests that are wrong in many ways, Ctrl-C.
source "$(dirname "$0")/lib.bash"
need curl "$python"
need_netcat

"$examples/http_server" --help | grep -q '^usage: http_server'
for wrong in '' '.' '. x' '. 1 2' '. 99999'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/http_server" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong' gives $status"
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
  [[ $code == 404 ]] || fail "$path gives $code"
done
[[ $(get -o /dev/null -w '%{http_code}' -d body "$url/") == 405 ]]

# One connection for all of it, a refused one with a body included.
[[ $(get -w '%{num_connects}' -o /dev/null "$url/" --next -w '%{num_connects}' --max-time 20 -s -o /dev/null -d body "$url/" \
  --next -w '%{num_connects}' --max-time 20 -s -o /dev/null "$url/none") == 100 ]] || fail "connections are not kept"

answers() { # what comes for these bytes: the status lines, in order
  printf "$1" | timeout 20 nc -N 127.0.0.1 "$port" | tr -d '\r' | grep -a '^HTTP/' | cut -d' ' -f2 | paste -sd' '
}
req='GET / HTTP/1.1\r\nHost: x\r\n\r\n'
[[ $(answers "$req$req$req") == '200 200 200' ]] || fail "pipelining"
[[ $(answers "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n$req") == 200 ]] || fail "close is not kept to"
[[ $(answers 'GET / HTTP/1.1\r\n\r\n') == 400 ]] || fail "no Host"
[[ $(answers "rubbish\r\n\r\n$req") == 400 ]] || fail "rubbish"
[[ $(answers "GET / HTTP/2.0\r\nHost: x\r\n\r\n$req") == 400 ]] || fail "another version"
[[ $(answers "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$req") == 501 ]] || fail "chunked"
[[ $(answers "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n$req") == 501 ]] || fail "length"
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
p.send_signal(signal.SIGINT)  # this client keeps its connection, and is not waited for long
assert p.wait(timeout=20) == 0
PYTHON
