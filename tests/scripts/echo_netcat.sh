#!/usr/bin/env bash
# Both echo servers with netcat, which half-closes after sending; meanwhile another client, of bash, is
# connected and idle.
source "$(dirname "$0")/lib.bash"
need_netcat
random_file 1 "$work/sent"

for face in coroutine callback; do
  start "$face" "$examples/echo_$face" 0
  port=$(printed_port "$face")
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  nc -N 127.0.0.1 "$port" <"$work/sent" >"$work/answer"
  same "$work/sent" "$work/answer"
  echo 'a line' >&3
  read -r -t 10 line <&3
  [[ $line == 'a line' ]] || fail "the idle client got '$line'"
  exec 3>&-
done
