#!/usr/bin/env bash
# The UNIX socket greetings of the examples, with netcat at the other end.
source "$(dirname "$0")/lib.bash"
need_netcat

start server "$examples/unix_server" "$work/ours"
eventually unix_listens "$work/ours"
printf 'Netcat' | nc -N -U "$work/ours" >"$work/answer"
expect "$work/answer" 'Hello, Netcat\n'

printf 'from netcat\n' | nc -l -N -U "$work/theirs" >"$work/heard" &
netcat=$!
eventually unix_listens "$work/theirs"
"$examples/unix_client" "$work/theirs" >"$work/answer"
expect "$work/answer" 'from netcat\n'
wait "$netcat"
expect "$work/heard" 'Client\n'

# Netcat has left its file behind. A server of this library replaces it, but neither a socket in use nor a
# file of another kind.
[[ -S $work/theirs ]]
start successor "$examples/unix_server" "$work/theirs"
eventually unix_listens "$work/theirs"
echo precious >"$work/file"
for taken in "$work/theirs" "$work/file"; do
  if "$examples/unix_server" "$taken" 2>"$work/refused"; then fail "$taken was taken over"; fi
  grep -q 'bind: address already in use (EADDRINUSE)' "$work/refused"
done
expect "$work/file" 'precious\n'
printf 'still there' | nc -N -U "$work/theirs" >"$work/answer"
expect "$work/answer" 'Hello, still there\n'
