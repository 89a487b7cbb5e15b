#!/usr/bin/env bash
# The UNIX datagram examples, with socat at the other end.
source "$(dirname "$0")/lib.bash"
need socat

start server "$examples/unix_datagram_hello" "$work/ours"
eventually unix_is_bound "$work/ours"
coproc client { exec socat - "UNIX-SENDTO:$work/ours,bind=$work/client"; }
for name in one two; do
  printf '%s' "$name" >&"${client[1]}"
  read -r -t 10 -N $((7 + ${#name})) answer <&"${client[0]}"
  [[ $answer == "Hello, $name" ]] || fail "$name was answered '$answer'"
done

# As with syslog's socket: any process may write, and gets no answer.
for _ in one two; do
  socat -u "UNIX-RECVFROM:$work/log" - >"$work/heard" &
  socat=$!
  eventually unix_is_bound "$work/log"
  "$examples/unix_datagram_client" "$work/log"
  wait "$socat"
  expect "$work/heard" 'Hi there!\n'
done

# Without a receiver the client reports that, and fails.
if "$examples/unix_datagram_client" "$work/log" 2>"$work/client.err"; then fail "sent without a receiver"; fi
grep -q 'connect: no such file (ENOENT)' "$work/client.err"
