#!/usr/bin/env bash
# Makes the certificates and keys that tests of TLS use, into a folder: make_certificates.sh FOLDER
#
#   ca, other_ca      authorities, and keys
#   server, rsa       for localhost, server.example, *.wild.example, 127.0.0.1 and ::1; the second with RSA
#   other             for other.example and *.other.example
#   chain             like server, from an intermediate authority, whose certificate follows; leaf: without it
#   client, stranger  clients, from ca and from other_ca
#   expired, future, self_signed, client_only, weak, usurped
#                     like server, but with what their names say; the first three may be clients, too, and
#                     the last was signed by another server
#   renamed           for elsewhere.example, though its common name is server.example
#   nameless          a server of no name at all
#   common_name, common_address
#                     servers that only their common names call server.example and 127.0.0.1
#   mail              the first of them with a subjectAltName that is no host's
#   wildcards         for names with an asterisk in all kinds of places, of which "*.deep.w.example" is good, and
#                     for the *name* 127.0.0.1
#   server_encrypted.key, server_aes.key, server_traditional.key
#                     the server's key under the password "secret": PKCS#8 with triple DES, which every
#                     library reads, with AES, and the older form of PEM
#   server_older.key, rsa_older.key
#                     keys in their older forms, SEC 1 and PKCS#1
#   combined, garbage, empty
#                     a certificate and its key in one file; no certificate, but framed like one; nothing
#
# Each NAME is NAME.pem and NAME.key. All but the expired one and the future one are valid for decades
# around now, so that a simulated calendar suits them, too.
set -eEuo pipefail

if [[ $# != 1 ]]; then
  echo "usage: ${0##*/} FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
cd "$1"
trap 'cat openssl.log >&2' ERR

cat >openssl.cnf <<'END'
[req]
distinguished_name = subject
[subject]
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = any_name
unique_subject = no
rand_serial = yes
[any_name]
commonName = optional

[authority_extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server_extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:server.example, DNS:*.wild.example, IP:127.0.0.1, IP:::1
[either_extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, DNS:server.example
[other_extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:other.example, DNS:*.other.example
[renamed_extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
[nameless_extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
[mail_extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = email:admin@server.example, URI:https://server.example/
[wildcard_extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:*, DNS:*.top, DNS:w*.part.example, DNS:*w.part.example, DNS:a.*.mid.example, DNS:*.*.two.example, DNS:*.deep.w.example, DNS:127.0.0.1
[client_extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:localhost, DNS:server.example
END
: >index.txt
: >openssl.log

elliptic=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
since=20000101000000Z
until=20491231235959Z

# make NAME SUBJECT EXTENSIONS ISSUER [KEY OPTIONS…]: an ISSUER of "self" signs itself.
make() {
  local name=$1 subject=$2 extensions=$3 issuer=$4
  shift 4
  local key=("${elliptic[@]}") signer=(-cert "$issuer.pem" -keyfile "$issuer.key")
  if [[ $# != 0 ]]; then key=("$@"); fi
  if [[ $issuer == self ]]; then signer=(-selfsign -keyfile "$name.key"); fi
  openssl req -config openssl.cnf -new "${key[@]}" -nodes -keyout "$name.key" -subj "/${subject:+CN=$subject}" \
    -out request.pem 2>>openssl.log
  openssl ca -config openssl.cnf -batch -notext "${signer[@]}" -startdate "$since" -enddate "$until" \
    -extensions "$extensions" -in request.pem -out "$name.pem" 2>>openssl.log
}

make ca "Test Authority" authority_extensions self
make other_ca "Another Test Authority" authority_extensions self
make intermediate "Test Intermediate Authority" authority_extensions ca

make server "Test Server" server_extensions ca
make rsa "Test Server with RSA" server_extensions ca -newkey rsa:2048
make other "Other Test Server" other_extensions ca
make leaf "Test Server behind an Intermediate" server_extensions intermediate
make client "Test Client" client_extensions ca
make stranger "Test Stranger" client_extensions other_ca

until=20010101000000Z make expired "Expired Test Server" either_extensions ca
since=20490101000000Z make future "Future Test Server" either_extensions ca
make self_signed "Test Server on its own" either_extensions self
make client_only "Test Client as a Server" client_extensions ca
make weak "Weak Test Server" server_extensions ca -newkey rsa:1024
make usurped "Test Server of a Usurper" server_extensions server
make renamed server.example renamed_extensions ca
make nameless "" nameless_extensions ca
make common_name server.example nameless_extensions ca
make common_address 127.0.0.1 nameless_extensions ca
make mail server.example mail_extensions ca
make wildcards "Test Server of Asterisks" wildcard_extensions ca

cat leaf.pem intermediate.pem >chain.pem
cp leaf.key chain.key
cat server.pem server.key >combined.pem
printf '%s\n' '-----BEGIN CERTIFICATE-----' 'R2FyYmFnZSwgYnV0IHdlbGwgZnJhbWVkLg==' '-----END CERTIFICATE-----' \
  >garbage.pem
: >empty.pem

{
  openssl pkcs8 -topk8 -v2 des3 -in server.key -passout pass:secret -out server_encrypted.key
  openssl pkcs8 -topk8 -v2 aes-256-cbc -in server.key -passout pass:secret -out server_aes.key
  openssl ec -aes256 -in server.key -passout pass:secret -out server_traditional.key
  openssl ec -in server.key -out server_older.key
  openssl rsa -traditional -in rsa.key -out rsa_older.key
} 2>>openssl.log

# What `openssl ca` keeps of each certificate, by serial number.
find . -maxdepth 1 -type f -regextype posix-extended -regex '\./[0-9A-F]{16,}\.pem' -delete
rm -f index.txt* request.pem openssl.cnf openssl.log
