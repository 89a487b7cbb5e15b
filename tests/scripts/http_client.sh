#!/usr/bin/env bash
# The HTTP client with Python's HTTP server: bodies of all kinds, redirections, answers that are truncated or
# wrong, files that appear only when complete, Ctrl-C.
source "$(dirname "$0")/lib.bash"
need "$python"

client=$examples/http_client
"$client" --help | grep -q '^usage: http_client'
for wrong in '' 'localhost' 'https://localhost/' 'http://' 'http://:80/' 'http://localhost:/' 'http://localhost:65536/' \
  'http://user@localhost/' '--output' '--output f' 'http://a/ http://b/' '--none http://a/' '--max-time x http://a/' \
  '--max-bytes -1 http://a/' '--max-bytes'; do
  status=0
  # shellcheck disable=SC2086
  "$client" $wrong >"$work/out" 2>/dev/null || status=$?
  ((status == 2)) && [[ ! -s $work/out ]] || fail "'$wrong': exit status $status"
done
status=0
"$client" $'http://localhost/a\r\nX: y' >/dev/null 2>&1 || status=$?
((status == 2)) || fail "a line of its own in the address: exit status $status"

random_file 16 "$work/large"
cat >"$work/server.py" <<'PYTHON'
import http.server, sys, threading

large = open(sys.argv[1], "rb").read()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def raw(self, *pieces):
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
        self.close_connection = True

    def redirect(self, to, status=302):
        self.send_response(status)
        self.send_header("lOCATION", to)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"moved")

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        me = "%s:%d" % self.server.server_address[:2]
        head = b"HTTP/1.1 200 OK\r\n"
        if path == "/":
            body = f"{self.path} {self.headers['Host']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif path == "/large":
            self.send_response(200)
            self.send_header("Content-Length", str(len(large)))
            self.end_headers()
            self.wfile.write(large)
        elif path == "/large-chunked":
            pieces = [large[i : i + 77777] for i in range(0, len(large), 77777)]
            self.raw(head + b"Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n")
            self.raw(*(b"%x;name=value\r\n%s\r\n" % (len(p), p) for p in pieces), b"0\r\nTrailer: x\r\n\r\n")
        elif path == "/large-to-end":
            self.raw(b"HTTP/1.0 200 OK\r\n\r\n", large)
        elif path == "/continue":
            self.raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + head
                     + b"Content-Length:  2 \r\n\r\nok")
        elif path == "/folded":
            self.raw(b"HTTP/1.1 200\r\nX: y\r\n\tz\r\nContent-Length:\r\n  2\r\n\r\nok")
        elif path == "/colours":
            self.raw(*(b"%c" % c for c in head + b"\r\na\x1b]0;x\x07\t\xc3\xa9\xc2\x9b31m\x9b\xff\r\n\xe2\x82\xac\rb\n"))
        elif path == "/drips":
            self.raw(head + b"Transfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    self.raw(b"1;" + b"x" * 1000 + b"\r\nx\r\n")
            except OSError:
                pass
        elif path == "/bytewise":
            self.raw(*(b"%c" % c for c in head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
        elif path == "/none":
            self.raw(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif path == "/missing":
            self.send_error(404)
        elif path == "/a/b/redirect":
            self.redirect({"absolute": f"http://{me}/?absolute", "host": f"//{me}/?host", "path": "/?path#part",
                           "beside": "beside", "query": "?end", "secure": "https://localhost/", "odd": "mailto:me"}[query]
                          if query != "end" else "/?query", 301)
        elif path == "/a/b/beside":
            self.redirect("../../?beside", 308)
        elif path == "/a/b/../../":
            self.redirect("/?beside", 307)
        elif path == "/round":
            self.redirect("/round")
        elif path == "/short":
            self.raw(head + b"Content-Length: 10\r\n\r\nshort")
        elif path == "/short-chunk":
            self.raw(head + b"Transfer-Encoding: chunked\r\n\r\nA\r\nshort")
        elif path == "/no-last-chunk":
            self.raw(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")
        elif path == "/silent":
            self.raw(head[:9])
        elif path in answers:
            self.raw(answers[path])
        elif path == "/waits":
            self.raw(head + b"Content-Length: 10\r\n\r\nshort")
            self.close_connection = False
            print("waits", flush=True)
            self.rfile.read(1)
            self.close_connection = True


chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
answers = {
    "/wrong/version": b"HTTP/2 200 OK\r\n\r\n",
    "/wrong/status": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "/wrong/rubbish": b"\x00" * 70000,
    "/wrong/length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "/wrong/huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "/wrong/coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "/wrong/size": chunked + b"x\r\n",
    "/wrong/end": chunked + b"2\r\nokno\r\n",
    "/wrong/extension": chunked + b"2;" + b"x" * 100000 + b"\r\nok\r\n0\r\n\r\n",
    "/wrong/blank": chunked + b"2 x\r\nok\r\n0\r\n\r\n",
    "/wrong/trailers": chunked + b"2\r\nok\r\n0\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    "/wrong/trailer": chunked + b"2\r\nok\r\n0\r\nX : y\r\n\r\n",
    "/wrong/interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "/wrong/switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "/wrong/lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "/wrong/field": b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
    "/wrong/control": b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\nContent-Length: 2\r\n\r\nok",
    "/wrong/reason": b"HTTP/1.1 404 \x1b[2J\r\nContent-Length: 0\r\n\r\n",
    "/wrong/old": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "/odd/reason": b"HTTP/1.1 404 \xc2\x9b2J \xc3\xa9 \x9b\r\nContent-Length: 0\r\n\r\n",
    "/odd/place": b"HTTP/1.1 302 Found\r\nLocation: mailto:\xc2\x9b2J\r\nContent-Length: 0\r\n\r\n",
    "/wrong/head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
}
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print("listening on port", server.server_address[1], flush=True)
server.serve_forever()
PYTHON

start server "$python" "$work/server.py" "$work/large"
port=$(printed_port server)
url=http://127.0.0.1:$port
get() { timeout 20 "$client" "$@"; }

[[ $(get "$url") == "/ 127.0.0.1:$port" ]]
[[ $(get "HTTP://localhost:$port?query#part") == "/?query localhost:$port" ]]
[[ $(get --head "$url" | tr -d '\r' | grep '^Content-Length') == 'Content-Length: 1000' ]]
for kind in large large-chunked large-to-end; do
  get --output "$work/got" "$url/$kind"
  same "$work/large" "$work/got"
done
get "$url/large" >"$work/piped"
same "$work/large" "$work/piped"
[[ $(get "$url/continue") == ok ]]
[[ $(get "$url/folded") == ok ]]
[[ $(get "$url/bytewise") == ok ]]
[[ -z $(get "$url/none") ]]
for kind in absolute host path query beside; do
  [[ $(get "$url/a/b/redirect?$kind") == "/?$kind 127.0.0.1:$port" ]] || fail "redirected by $kind"
done

# refuses URL WORDS [OPTION…]: no part of the requested file is left, an old file stays, and WORDS are
# printed.
refuses() {
  local status=0
  echo old >"$work/kept"
  get --output "$work/kept" "${@:3}" "$1" 2>"$work/said" || status=$?
  ((status == 1)) || fail "$1: exit status $status"
  grep -q -- "$2" "$work/said" || fail "wrong message for $1: $(cat "$work/said")"
  [[ $(cat "$work/kept") == old && ! -e $work/kept.part ]] || fail "$1 leaves half a file"
}
refuses "$url/missing" 'HTTP/1.1 404'
refuses "$url/round" 'after 10 redirections'
refuses "$url/a/b/redirect?secure" 'cannot follow the redirection to https://localhost/'
refuses "$url/a/b/redirect?odd" 'cannot follow the redirection to mailto:me'
for kind in short short-chunk no-last-chunk; do refuses "$url/$kind" 'before the page was complete'; done
refuses "$url/silent" 'stream ended'
refuses "$url/wrong/version" 'the status line'
refuses "$url/wrong/status" 'the status line'
refuses "$url/wrong/rubbish" 'delimiter'
refuses "$url/wrong/head" 'delimiter'
refuses "$url/wrong/length" 'the Content-Length'
refuses "$url/wrong/huge" 'the Content-Length'
refuses "$url/wrong/coding" 'the Transfer-Encoding'
refuses "$url/wrong/size" 'the size of a chunk'
refuses "$url/wrong/end" 'the end of a chunk'
refuses "$url/wrong/extension" 'delimiter'
refuses "$url/wrong/blank" 'the size of a chunk'
refuses "$url/wrong/trailers" 'delimiter'
refuses "$url/wrong/trailer" 'the trailers'
refuses "$url/wrong/interim" 'too many answers'
refuses "$url/wrong/switch" 'a change of protocols'
refuses "$url/wrong/lengths" 'the Content-Length'
refuses "$url/wrong/field" 'a header field'
refuses "$url/wrong/control" 'a header field'
refuses "$url/wrong/reason" 'the status line'
refuses "$url/wrong/old" 'the Transfer-Encoding'
# Text from a server is not printed to a terminal unchanged.
refuses "$url/odd/reason" 'HTTP/1.1 404 \\xc2\\x9b2J é \\x9b$'
refuses "$url/odd/place" 'cannot follow the redirection to mailto:\\xc2\\x9b2J$'
for kind in large large-chunked large-to-end; do refuses "$url/$kind" 'the page: ' --max-bytes 16777215; done
get --output "$work/got" --max-bytes 16777216 "$url/large"
same "$work/large" "$work/got"
refuses "$url/drips" 'timed out' --max-time 1
refuses http://127.0.0.1:1/ 'ECONNREFUSED'
refuses http://no.such.name.invalid/ 'getaddrinfo'

"$python" - "$client" "$url/colours" <<'PYTHON'
import os, pty, subprocess, sys

page = b"a\x1b]0;x\x07\t\xc3\xa9\xc2\x9b31m\x9b\xff\r\n\xe2\x82\xac\rb\n"
assert subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, timeout=20, check=True).stdout == page
terminal, end = pty.openpty()
client = subprocess.Popen(sys.argv[1:], stdout=end)
os.close(end)
shown = b""
try:
    while piece := os.read(terminal, 1000):
        shown += piece
except OSError:
    pass  # how Linux reports that the last writer has closed
assert client.wait(timeout=20) == 0
assert shown.replace(b"\r", b"") == rb"a\x1b]0;x\x07" + "\té".encode() + rb"\xc2\x9b31m\x9b\xff" + "\n€".encode() + b"\\x0db\n", shown
PYTHON

status=0
get --output "$work/none/file" "$url" 2>"$work/said" || status=$?
((status == 1)) && grep -q 'No such file' "$work/said" || fail "a missing directory: $status"
status=0
get "$url/large" 2>"$work/said" >/dev/full || status=$?
((status == 1)) && grep -qi 'no space' "$work/said" || fail "a full disk: $status, $(cat "$work/said")"

"$client" --output "$work/cut" "$url/waits" 2>"$work/said" &
interrupted=$!
eventually grep -q waits "$work/server"
kill -INT "$interrupted"
status=0
wait "$interrupted" || status=$?
((status == 130)) && [[ ! -e $work/cut && ! -e $work/cut.part ]] || fail "Ctrl-C: exit status $status"
