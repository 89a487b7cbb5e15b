#!/usr/bin/env bash
# STARTTLS: both sides of the example with each other, with OpenSSL's client, and with an attacker in between
# who injects clear text that would be taken for encrypted.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash
need "$python"

for engine in $engines; do
  starttls=$examples-$engine/starttls
  start "server_$engine" "$starttls" server 0 "$certificates/server.pem" "$certificates/server.key"
  port=$(printed_port "server_$engine")

  "$starttls" client localhost "$port" "$ca" server.example >"$work/printed"
  holds "$work/printed" "TLSv1."
  holds "$work/printed" "250 starttls, encrypted"
  must_fail 1 "$work/complaint" "$starttls" client localhost "$port" "$ca" elsewhere.example
  holds "$work/complaint" "is for another name"
  must_fail 1 "$work/complaint" "$starttls" client localhost "$port" "$certificates/other_ca.pem" localhost
  holds "$work/complaint" "from an unknown authority"

  for version in $(versions_of "$engine"); do
    printf 'NOOP\r\nQUIT\r\n' | s_client "$port" -quiet "-tls$version" -starttls smtp >"$work/printed" \
      2>"$work/complaint"
    expect "$work/printed" '250 done\r\n221 good bye\r\n'
  done

  "$python" - "$port" <<'PYTHON'
import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as client:
    lines = client.makefile("rwb")
    assert lines.readline().startswith(b"220 ")
    lines.write(b"STARTTLS\r\nNOOP\r\n")
    lines.flush()
    assert lines.readline().startswith(b"501 ")
    assert lines.read() == b""
PYTHON

  # A server that sends more than it should, and one that cannot encrypt.
  for said in '250 STARTTLS|220 go ahead\r\n250 and more' '250 nothing|502 no' '250 STARTTLS|454 not now'; do
    "$python" - "$work/port" "${said%|*}" "${said#*|}" <<'PYTHON' &
import os, socket, sys

with socket.create_server(("127.0.0.1", 0)) as listener:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(listener.getsockname()[1]))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    client = listener.accept()[0]
lines = client.makefile("rwb")
lines.write(b"220 hello\r\n")
lines.flush()
for answer in sys.argv[2:]:
    if not lines.readline():
        break
    lines.write(answer.encode().decode("unicode_escape").encode() + b"\r\n")
    lines.flush()
lines.read()
PYTHON
    eventually test -e "$work/port"
    must_fail 1 "$work/complaint" timeout 20 "$starttls" client 127.0.0.1 "$(cat "$work/port")" "$ca" localhost
    case $said in
      *more) holds "$work/complaint" "clear text after STARTTLS" ;;
      *no) holds "$work/complaint" "STARTTLS: not supported" ;;
      *) holds "$work/complaint" "the server's answer" ;;
    esac
    wait "$!"
    rm "$work/port"
  done
done
