#!/usr/bin/env bash
# https_client with OpenSSL's server and with Python's: pages of every framing, and certificates that it must
# reject.
source "$(dirname "$0")/lib.bash"
source tests/scripts/tls.bash
need "$python"

random_file 4 "$work/page"
file_port=() www_port=()
serve_openssl() { # serve_openssl NAME CERTIFICATE ARGUMENTS…
  local name=$1 certificate=$certificates/$2
  shift 2
  port=$(free_port)
  start "$name" env -C "$work" openssl s_server -quiet -accept "127.0.0.1:$port" -cert "$certificate.pem" \
    -key "$certificate.key" "$@"
  eventually tcp_listens "$port"
}

for version in 1_2 1_3; do
  serve_openssl "file_$version" server -WWW "-tls$version"
  file_port[${version#1_}]=$port
  serve_openssl "www_$version" server -www "-tls$version"
  www_port[${version#1_}]=$port
done
declare -A wrong_port
for certificate in expired future other self_signed; do
  serve_openssl "$certificate" "$certificate" -www
  wrong_port[$certificate]=$port
done
pages=$(free_port)
start pages "$python" tests/peers/tls_peer.py http_server "$pages" "$certificates/rsa.pem" "$certificates/rsa.key"
eventually tcp_listens "$pages"
"$python" tests/peers/tls_peer.py http_body >"$work/body"

for engine in $engines; do
  client=$examples-$engine/https_client
  for version in $(versions_of "$engine"); do
    "$client" --ca "$ca" localhost "${file_port[${version#1_}]}" /page >"$work/answer"
    same "$work/page" "$work/answer"
    "$client" --ca "$ca" 127.0.0.1 "${www_port[${version#1_}]}" / >"$work/answer"
    holds "$work/answer" "New, TLSv${version/_/.}"
  done

  for page in length chunked rest; do
    "$client" --ca "$ca" localhost "$pages" "/$page" >"$work/answer"
    same "$work/body" "$work/answer"
  done
  for page in half_length half_rest half_chunk odd_chunk odd_length odd_head odd_interim odd_trailers missing; do
    must_fail 1 "$work/complaint" "$client" --ca "$ca" localhost "$pages" "/$page"
    case $page in
      half_rest) holds "$work/complaint" "without a close_notify" ;;
      half_*) holds "$work/complaint" "end of stream" ;;
      odd_chunk) holds "$work/complaint" "a chunk" ;;
      odd_length | odd_head) holds "$work/complaint" "Content-Length" ;;
      odd_interim) holds "$work/complaint" "too many answers" ;;
      odd_trailers) holds "$work/complaint" "no delimiter" ;;
      missing) holds "$work/complaint" "status 404" ;;
    esac
  done

  refused() { # refused WORDS ARGUMENTS…
    must_fail 1 "$work/complaint" "$client" "${@:2}" /
    holds "$work/complaint" "$1"
  }
  port=${www_port[2]}
  refused "from an unknown authority" --ca "$certificates/other_ca.pem" localhost "$port"
  refused "from an unknown authority" localhost "$port" # the system's authorities
  SSL_CERT_FILE=$ca "$client" localhost "$port" / >"$work/answer"
  refused "has expired" --ca "$ca" localhost "${wrong_port[expired]}"
  refused "is not valid yet" --ca "$ca" localhost "${wrong_port[future]}"
  refused "is for another name" --ca "$ca" localhost "${wrong_port[other]}"
  refused "is for another name" --ca "$ca" 127.0.0.1 "${wrong_port[other]}"
  refused "is self-signed" --ca "$ca" localhost "${wrong_port[self_signed]}"
  refused "ca_file" --ca "$work/nowhere" localhost "$port"
  refused "connection refused" --ca "$ca" localhost "$(free_port)"
done
