#!/usr/bin/env bash
# The TCP programs of AnyIO's guide, each talking with its counterpart among the examples.
source "$(dirname "$0")/lib.bash"
need_anyio

port=$(free_port)
start server "$examples/tcp_server" "$port"
eventually tcp_listens "$port"
for host in 127.0.0.1 localhost; do
  "$python" tests/peers/anyio_peer.py tcp_client "$host" "$port" >"$work/answer"
  expect "$work/answer" 'Hello, Client\n\n'
done

port=$(free_port)
start anyio "$python" tests/peers/anyio_peer.py tcp_server "$port"
eventually tcp_listens "$port"
for host in 127.0.0.1 localhost; do
  "$examples/tcp_client" "$host" "$port" >"$work/answer"
  expect "$work/answer" 'Hello, Client\n\n'
done
