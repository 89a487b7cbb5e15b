#!/usr/bin/env bash
# tls_echo_server with OpenSSL's client: verified by it, resumed, and requesting its certificate.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash

for engine in $engines; do
  start "server_$engine" "$examples-$engine/tls_echo_server" 0 "$certificates/chain.pem" "$certificates/chain.key"
  port=$(printed_port "server_$engine")
  start "strict_$engine" "$examples-$engine/tls_echo_server" 0 "$certificates/server.pem" \
    "$certificates/server.key" "$ca"
  strict=$(printed_port "strict_$engine")

  for version in $(versions_of "$engine"); do
    name=TLSv${version/_/.}
    echoed_by "$port" "$work/printed" "-tls$version" -sess_out "$work/session"
    holds "$work/printed" "New, $name"
    holds "$work/printed" "Verify return code: 0 (ok)"
    for _ in 1 2; do
      echoed_by "$port" "$work/printed" "-tls$version" -sess_in "$work/session" -sess_out "$work/session"
      holds "$work/printed" "Reused, $name"
    done

    shows() { s_client "$strict" "-tls$version" -quiet "$@" <&"$silence"; }
    echoed_by "$strict" "$work/printed" "-tls$version" -cert "$certificates/client.pem" \
      -key "$certificates/client.key" -sess_out "$work/session"
    holds "$work/printed" "New, $name"
    echoed_by "$strict" "$work/printed" "-tls$version" -cert "$certificates/client.pem" \
      -key "$certificates/client.key" -sess_in "$work/session"
    holds "$work/printed" "Reused, $name"
    must_fail 1 "$work/complaint" shows
    must_fail 1 "$work/complaint" shows -cert "$certificates/stranger.pem" -key "$certificates/stranger.key"
    holds "$work/complaint" "alert"
    must_fail 1 "$work/complaint" shows -cert "$certificates/server.pem" -key "$certificates/server.key"
  done

  if [[ $(versions_of "$engine") == *1_3* ]]; then # both ends update their keys
    : >"$work/printed"
    {
      echo K && eventually grep -q KEYUPDATE "$work/printed"
      echo "with other keys" && eventually grep -q "with other keys" "$work/printed"
    } | s_client "$port" -tls1_3 -no_ign_eof >"$work/printed" 2>&1
  fi

  s_client "$port" -tls1_2 -reconnect </dev/null >"$work/printed" 2>&1
  [[ $(grep -c '^New, TLSv1.2' "$work/printed") == 1 ]]
  [[ $(grep -c '^Reused, TLSv1.2' "$work/printed") == 5 ]]

  must_fail 1 "$work/complaint" s_client "$port" -quiet -tls1_1 -cipher DEFAULT@SECLEVEL=0 <&"$silence"
  must_fail 1 "$work/complaint" s_client "$port" -quiet -CAfile "$certificates/other_ca.pem" <&"$silence"
  must_fail 1 "$work/complaint" s_client "$port" -quiet -verify_hostname elsewhere.example <&"$silence"

  holds "$work/strict_$engine.err" "the peer sent no certificate"
  holds "$work/strict_$engine.err" "from an unknown authority"
  holds "$work/strict_$engine.err" "is for another purpose"

  # Clients that stay silent, or do not send TLS, do not affect others.
  exec {mute}<>"/dev/tcp/127.0.0.1/$port"
  exec {rude}<>"/dev/tcp/127.0.0.1/$port"
  echo "this is no ClientHello" >&"$rude"
  eventually grep -q "is not TLS" "$work/server_$engine.err"
  echoed_by "$port" "$work/printed"
  exec {mute}>&- {rude}>&-
done
