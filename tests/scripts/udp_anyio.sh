#!/usr/bin/env bash
# The UDP programs of AnyIO's guide, each talking with its counterpart among the examples.
source "$(dirname "$0")/lib.bash"
need_anyio

port=$(free_port)
start server "$examples/udp_hello" "$port"
eventually udp_is_bound "$port"
"$python" tests/peers/anyio_peer.py udp_client 127.0.0.1 "$port" >"$work/answer"
expect "$work/answer" 'Hello, AnyIO'

port=$(free_port)
start anyio "$python" tests/peers/anyio_peer.py udp_hello "$port"
eventually udp_is_bound "$port"
"$examples/udp_client" 127.0.0.1 "$port"
eventually test -s "$work/anyio"
expect "$work/anyio" 'Hi there!\n'
