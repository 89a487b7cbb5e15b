// A throw-away certificate and its key, EC P-256, created only for these targets with the openssl command: it
// names fuzz.example, is its own authority, is valid from 2020 to 2120, and protects nothing.
#pragma once

#include <string_view>

namespace fuzz {

inline constexpr std::string_view certificate = R"(
-----BEGIN CERTIFICATE-----
MIIBajCCARCgAwIBAgIBATAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxmdXp6LmV4
YW1wbGUwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBcxFTATBgNV
BAMMDGZ1enouZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBJNNiRh
/BmSTitkIBIaSvtDTRW1wiKrV2lObkDsNAk0MzB0bnRNjq9nBJ1RkkOuZfsIZwBB
MZzmReOSgN4HHhGjSzBJMBcGA1UdEQQQMA6CDGZ1enouZXhhbXBsZTAPBgNVHRMB
Af8EBTADAQH/MB0GA1UdDgQWBBSddiRxv6FZcabSYwQnn2LTjlliMzAKBggqhkjO
PQQDAgNIADBFAiEAjzJLBQfzcLWJDC+5Hu35CbbzkicOJjdyubNvzAVPbU0CIGGZ
rsfE4rQPyHLHcf/xd2OTrVg22X3frWBALWUa2zgN
-----END CERTIFICATE-----
)";

inline constexpr std::string_view private_key = R"(
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTsNMYZZ3gjKEKqOQ
DSgazbg0FiLFi4cj04tDa1G7t0GhRANCAAQSTTYkYfwZkk4rZCASGkr7Q00VtcIi
q1dpTm5A7DQJNDMwdG50TY6vZwSdUZJDrmX7CGcAQTGc5kXjkoDeBx4R
-----END PRIVATE KEY-----
)";

}  // namespace fuzz
