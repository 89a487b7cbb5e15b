#!/usr/bin/env bash
# DNS queries to a dnsmasq, answers that are truncated, forged or malformed, and a server that does not
# answer.
source "$(dirname "$0")/lib.bash"
need "$python"

"$examples/dns" --help | grep -q '^usage: dns'
for wrong in '' 'name WHAT' '--server x name' 'a..b' "$(printf 'x%.0s' {1..64})" 'name A more'; do
  status=0
  # shellcheck disable=SC2086
  "$examples/dns" $wrong >/dev/null 2>&1 || status=$?
  ((status == 2)) || fail "'$wrong': exit status $status"
done

if command -v dnsmasq >/dev/null; then
  port=$(free_port)
  long=$(printf 'long%.0s' {1..50})
  start dnsmasq dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --pid-file= --user="$(id -un)" \
    --port="$port" --listen-address=127.0.0.1 --bind-interfaces --local=/test/ --host-record=one.test,192.0.2.7,2001:db8::7 \
    --cname=alias.test,one.test --mx-host=one.test,mail.test,10 --txt-record=one.test,"some text" \
    --txt-record=big.test,"1$long","2$long","3$long","4$long"
  eventually udp_is_bound "$port"
  ask() { "$examples/dns" --server "127.0.0.1:$port" "$@" >"$work/answer" 2>"$work/complaint"; }
  ask one.test
  expect "$work/answer" 'one.test. 192.0.2.7\n'
  ask one.test. AAAA
  expect "$work/answer" 'one.test. 2001:db8::7\n'
  ask alias.test
  expect "$work/answer" 'alias.test. one.test.\none.test. 192.0.2.7\n'
  ask one.test MX
  expect "$work/answer" 'one.test. 10 mail.test.\n'
  ask one.test TXT
  expect "$work/answer" 'one.test. "some text"\n'
  ask big.test TXT # more than 512 bytes: by TCP
  (($(wc -c <"$work/answer") > 800)) || fail "the long answer is cut off"
  status=0
  ask none.test || status=$?
  ((status == 1)) && grep -q 'no such name' "$work/complaint" || fail "no such name: $status, $(<"$work/complaint")"
fi

"$python" - "$examples/dns" <<'PYTHON'
import socket, struct, subprocess, sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
server.settimeout(20)

def ask(*answers_to):
    """What the program says when it gets these answers, each made from its question; None is silence."""
    p = subprocess.Popen([sys.argv[1], "--server", "127.0.0.1:%d" % server.getsockname()[1], "x.test"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for answer_to in answers_to:
        question, client = server.recvfrom(65536)
        for answer in answer_to(question) if answer_to else []:
            server.sendto(answer, client)
    out, err = p.communicate(timeout=20)
    return p.returncode, out + err

def answer(question, records, count=1, flags=0x8180):
    return question[:2] + struct.pack(">5H", flags, 1, count, 0, 0) + question[12:] + records

good = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 1])
right = (0, "x.test. 192.0.2.1\n")
assert ask(lambda q: [answer(q, good)]) == right
# Text from the network is not printed to a terminal unchanged.
text = b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, 9) + b"\x08\x1b]0;\xc2\x9bx\n"
assert ask(lambda q: [answer(q, text)]) == (0, 'x.test. "\\x1b]0;\\xc2\\x9bx\\x0a"\n')
# Forged answers are ignored: another number, another name, a query, an empty one.
assert ask(lambda q: [b"\0\0" + answer(q, good)[2:] if q[:2] != b"\0\0" else b"\1\1", answer(q, good).replace(b"\1x", b"\1y", 1),
                      q, b"", answer(q, good)]) == right
assert ask(None, lambda q: [answer(q, good)]) == right  # the first question was lost
for malformed in (good[:-1], b"\xc0\xff" + good[2:], b"\xc0\x1c" + good[2:], b"\x40" + good, b"", good[:2]):
    code, text = ask(lambda q: [answer(q, malformed)])
    assert code == 1 and "malformed" in text, (malformed, code, text)
assert ask(lambda q: [answer(q, b"", 0)]) == (1, "dns: the name has no record of this type\n")
assert ask(lambda q: [answer(q, b"", 0, 0x8182)]) == (1, "dns: the server failed\n")
PYTHON
