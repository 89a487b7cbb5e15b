#!/usr/bin/env bash
# 16 MiB through echo servers over TLS, with Python's ssl and AnyIO as clients and as servers.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash
need_anyio
random_file 16 "$work/sent"
peer=("$python" tests/peers/tls_peer.py)
server=("$certificates/server.pem" "$certificates/server.key")

for engine in $engines; do
  start "server_$engine" "$examples-$engine/tls_echo_server" 0 "${server[@]}"
  port=$(printed_port "server_$engine")
  for version in $(versions_of "$engine"); do
    "${peer[@]}" ssl_client "$port" "$ca" "TLSv$version" <"$work/sent" >"$work/answer"
    same "$work/sent" "$work/answer"
    for how in standard lenient; do
      "${peer[@]}" anyio_client "$port" "$ca" "TLSv$version" "$how" <"$work/sent" >"$work/answer"
      same "$work/sent" "$work/answer"
    done
    eventually grep -q "without a close_notify" "$work/server_$engine.err" # the lenient one
  done
  if [[ $(versions_of "$engine") == *1_3* ]]; then "${peer[@]}" half_close "$port" "$ca"; fi
done

for version in 1_2 1_3; do
  for kind in ssl standard lenient; do
    port=$(free_port)
    if [[ $kind == ssl ]]; then
      start "ssl_$version" "${peer[@]}" ssl_echo "$port" "${server[@]}" "TLSv$version"
    else
      start "${kind}_$version" "${peer[@]}" anyio_server "$port" "${server[@]}" "TLSv$version" "$kind"
    fi
    eventually tcp_listens "$port"
    for engine in $engines; do
      [[ " $(versions_of "$engine") " == *" $version "* ]] || continue
      words=(localhost "$port" "$ca")
      if [[ $kind == lenient ]]; then words=(lenient "${words[@]}"); fi
      # A pipe, since the relay cannot read a file.
      # shellcheck disable=SC2002
      cat "$work/sent" | "$peers-$engine/tls_relay" "${words[@]}" >"$work/answer" 2>"$work/relay.err"
      same "$work/sent" "$work/answer"
      expect "$work/relay.err" "TLSv${version/_/.}\n"
    done
  done
done
