# Sourced after lib.bash by the scripts that test TLS, which run with both engines: creates certificates, and
# sets where each engine's programs are.
need openssl
engines="mbedtls openssl"
for engine in $engines; do
  [[ -x $examples-$engine/https_client ]] || fail "no programs in $examples-$engine: make programs"
done
certificates=$work/certificates
bash tests/support/make_certificates.sh "$certificates"
ca=$certificates/ca.pem

# The versions that every build of an engine supports, as openssl's commands name them.
versions_of() { [[ $1 == openssl ]] && echo "1_2 1_3" || echo 1_2; }

# must_fail STATUS FILE COMMAND…: the command ends with that status, and its errors are in the file.
must_fail() {
  local expected=$1 complaint=$2 status=0
  shift 2
  "$@" >/dev/null 2>"$complaint" || status=$?
  ((status == expected)) || fail "ended with $status, not $expected: $*: $(head -c 500 "$complaint")"
}

# holds FILE TEXT: the file contains the text.
holds() { grep -qF -- "$2" "$1" || fail "no '$2' in $1: $(head -c 1000 "$1")"; }

# A standard input without any bytes, and without an end.
mkfifo "$work/silence"
exec {silence}<>"$work/silence"

# s_client PORT ARGUMENTS…: OpenSSL's client, which trusts only the tests' authority. Ends with the script.
s_client() {
  local port=$1
  shift
  openssl s_client -connect "127.0.0.1:$port" -CAfile "$ca" -verify_return_error -verify_hostname localhost "$@"
}

# echoed_by PORT FILE ARGUMENTS…: s_client sends hello to an echo server, ends when it is echoed, and its
# output is in the file.
echoed_by() {
  local port=$1 printed=$2
  shift 2
  : >"$printed"
  { echo "hello there" && eventually grep -q "hello there" "$printed"; } |
    s_client "$port" -no_ign_eof "$@" >"$printed" 2>"$printed.err"
}
