#!/usr/bin/env bash
# UNIX sockets with socat at the other end: the examples' greetings, and names in the abstract namespace.
source "$(dirname "$0")/lib.bash"
need socat

start server "$examples/unix_server" "$work/ours"
eventually unix_listens "$work/ours"
printf 'Socat' | socat -t 10 - "UNIX-CONNECT:$work/ours" >"$work/answer"
expect "$work/answer" 'Hello, Socat\n'

start socat socat "UNIX-LISTEN:$work/theirs,fork" 'SYSTEM:sed -e s/^/Socat-greets-/ -e q'
eventually unix_listens "$work/theirs"
"$examples/unix_client" "$work/theirs" >"$work/answer"
expect "$work/answer" 'Socat-greets-Client\n'

# An abstract name has exactly the given bytes: otherwise the two would not connect.
name=anyio_net-$$-$RANDOM
start abstract "$peers/unix_echo" "@$name"
eventually unix_listens "@$name"
printf 'to ours' | socat -t 10 - "ABSTRACT-CONNECT:$name" >"$work/answer"
expect "$work/answer" 'to ours'
start socat_abstract socat "ABSTRACT-LISTEN:$name-socat,fork" EXEC:cat
eventually unix_listens "@$name-socat"
printf 'to theirs' | "$peers/relay" unix "@$name-socat" >"$work/answer"
expect "$work/answer" 'to theirs'
