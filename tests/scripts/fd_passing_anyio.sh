#!/usr/bin/env bash
# Descriptors passed to AnyIO and taken from it: the programs of its guide.
source "$(dirname "$0")/lib.bash"
need_anyio
printf 'what the file holds\n' >"$work/file"

start server "$examples/fd_server" "$work/ours" "$work/file"
eventually unix_listens "$work/ours"
"$python" tests/peers/anyio_peer.py fd_client "$work/ours" >"$work/answer"
expect "$work/answer" 'this message is ignored\nwhat the file holds\n'
"$examples/fd_client" "$work/ours" >"$work/answer"
expect "$work/answer" 'what the file holds\n'

start anyio "$python" tests/peers/anyio_peer.py fd_server "$work/theirs" "$work/file"
eventually unix_listens "$work/theirs"
"$examples/fd_client" "$work/theirs" >"$work/answer"
expect "$work/answer" 'what the file holds\n'
