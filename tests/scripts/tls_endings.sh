#!/usr/bin/env bash
# How connections end: by TLS's rules, only in TCP, with a reset, with a killed client; for a strict server
# and for one that is not.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash
need "$python"

for engine in $engines; do
  for kind in strict lenient; do
    name=${kind}_$engine
    start "$name" "$peers-$engine/tls_endings" "$kind" "$certificates/server.pem" "$certificates/server.key"
    port=$(printed_port "$name")
    said() { sed 1d "$work/$name"; }
    has_said() { [[ $(said) == "$1" ]]; }
    polite=polite cut=broken_resource
    if [[ $kind == lenient ]]; then polite=unanswered cut=end_of_stream; fi

    expected=""
    for how in $polite:end_of_stream ragged:$cut reset:broken_resource; do
      "$python" tests/peers/tls_peer.py ending "$port" "$ca" "${how%:*}"
      expected+="5 bytes, then ${how#*:}"
      eventually has_said "$expected"
      expected+=$'\n'
    done

    openssl s_client -connect "127.0.0.1:$port" -quiet <&"$silence" >"$work/client_$name" 2>"$work/complaint" &
    client=$!
    eventually grep -qs ready "$work/client_$name"
    kill -KILL "$client"
    wait "$client" 2>/dev/null || true
    eventually has_said "${expected}0 bytes, then $cut"
  done
done
