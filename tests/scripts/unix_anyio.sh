#!/usr/bin/env bash
# The UNIX socket programs of AnyIO's guide, each talking with its counterpart among the examples.
source "$(dirname "$0")/lib.bash"
need_anyio

start server "$examples/unix_server" "$work/ours"
eventually unix_listens "$work/ours"
"$python" tests/peers/anyio_peer.py unix_client "$work/ours" >"$work/answer"
expect "$work/answer" 'Hello, Client\n\n'

start anyio "$python" tests/peers/anyio_peer.py unix_server "$work/theirs"
eventually unix_listens "$work/theirs"
"$examples/unix_client" "$work/theirs" >"$work/answer"
expect "$work/answer" 'Hello, Client\n\n'
