// Addresses: parsed, formatted, ordered, and converted to and from the kernel's structures.
#include "anyio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

using anyio::errc;
using anyio::ip_address;
using anyio::ip_endpoint;
using anyio::result;

namespace {

using octets = std::array<std::byte, 16>;

ip_address address_of(std::string_view text) {
  const result<ip_address> parsed = ip_address::parse(text);
  CHECK_MESSAGE(parsed.has_value(), "does not parse: ", std::string(text));
  return parsed.value_or(ip_address());
}

ip_endpoint endpoint_of(std::string_view text) {
  const result<ip_endpoint> parsed = ip_endpoint::parse(text);
  CHECK_MESSAGE(parsed.has_value(), "does not parse: ", std::string(text));
  return parsed.value_or(ip_endpoint());
}

template <class T>
void check_refused(const result<T>& parsed, std::string_view text, std::string_view operation) {
  CAPTURE(std::string(text));
  CHECK_FALSE(parsed.has_value());
  CHECK(parsed.error() == errc::invalid_argument);
  CHECK(parsed.error().operation() == operation);
}

void refuse_address(const auto&... texts) {
  (check_refused(ip_address::parse(texts), texts, "ip_address"), ...);
}

void refuse_endpoint(const auto&... texts) {
  (check_refused(ip_endpoint::parse(texts), texts, "ip_endpoint"), ...);
}

octets bytes_of(const std::array<std::uint16_t, 8>& groups) {
  octets bytes;
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[2 * i] = static_cast<std::byte>(groups[i] >> 8);
    bytes[2 * i + 1] = static_cast<std::byte>(groups[i] & 0xff);
  }
  return bytes;
}

ip_address groups(std::uint16_t a, std::uint16_t b, std::uint16_t c, std::uint16_t d, std::uint16_t e,
                  std::uint16_t f, std::uint16_t g, std::uint16_t h, std::uint32_t scope = 0) {
  return ip_address::v6(bytes_of({a, b, c, d, e, f, g, h}), scope);
}

// Interfaces for a test: eth0 is 2, one with a long name is 3, the one named "17" is 4, "a]b:c%d" is 5.
class fake_interfaces {
 public:
  fake_interfaces() { anyio::detail::interface_lookup = {index, name}; }
  ~fake_interfaces() { anyio::detail::interface_lookup = before_; }
  fake_interfaces(const fake_interfaces&) = delete;
  fake_interfaces& operator=(const fake_interfaces&) = delete;

  static const std::string& long_name() {
    static const std::string text(63, 'x');
    return text;
  }

 private:
  static std::vector<std::string> names() { return {"", "", "eth0", long_name(), "17", "a]b:c%d"}; }
  static std::uint32_t index(const char* name) noexcept {
    const auto all = names();
    const auto found = std::find(all.begin() + 2, all.end(), name);
    return found == all.end() ? 0 : static_cast<std::uint32_t>(found - all.begin());
  }
  static bool name(std::uint32_t index, char* out) noexcept {
    const auto all = names();
    if (index < 2 || index >= all.size()) return false;
    std::memcpy(out, all[index].c_str(), all[index].size() + 1);
    return true;
  }

  anyio::detail::interface_names before_ = anyio::detail::interface_lookup;
};

// A system whose interfaces have no names.
class no_interfaces {
 public:
  no_interfaces() { anyio::detail::interface_lookup = {}; }
  ~no_interfaces() { anyio::detail::interface_lookup = before_; }
  no_interfaces(const no_interfaces&) = delete;
  no_interfaces& operator=(const no_interfaces&) = delete;

 private:
  anyio::detail::interface_names before_ = anyio::detail::interface_lookup;
};

// A copy of exactly `size` bytes, at an odd address, so that a sanitizer detects a read beyond it.
class raw_sockaddr {
 public:
  raw_sockaddr(const void* data, std::size_t size) : bytes_(new char[size + 1]), size_(size) {
    std::memcpy(bytes_.get() + 1, data, size);
  }
  const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(bytes_.get() + 1); }
  socklen_t size() const { return static_cast<socklen_t>(size_); }

 private:
  std::unique_ptr<char[]> bytes_;
  std::size_t size_;
};

std::string unix_round_trip(std::string_view path) {
  const auto address = anyio::detail::make_unix_address(path, "bind");
  CHECK(address.has_value());
  if (!address) return "no address";
  const raw_sockaddr raw(&address->storage, address->size);
  return anyio::detail::unix_path(raw.data(), raw.size());
}

std::string unix_path_of(const sockaddr_un& address, std::size_t size) {
  return anyio::detail::unix_path(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
}

constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);
constexpr std::size_t path_room = sizeof(sockaddr_un{}.sun_path);

}  // namespace

static_assert(std::is_trivially_copyable_v<ip_address> && sizeof(ip_address) <= 24);
static_assert(std::is_trivially_copyable_v<ip_endpoint> && sizeof(ip_endpoint) <= 28);
static_assert(std::is_aggregate_v<ip_endpoint>);
static_assert(ip_address() == ip_address::v4(0) && ip_address() == ip_address::any_v4());
static_assert(ip_address::loopback_v6().is_v6() && !ip_address::loopback_v6().is_v4());
static_assert(ip_address::loopback_v4().is_v4() && !ip_address::loopback_v4().is_v6());
static_assert(ip_endpoint{.port = 80}.address == ip_address());

TEST_CASE("a default constructed address is 0.0.0.0") {
  CHECK(ip_address().is_v4());
  CHECK(ip_address().to_string() == "0.0.0.0");
  CHECK(ip_endpoint().to_string() == "0.0.0.0:0");
}

TEST_CASE("the named constants have the documented values") {
  CHECK(ip_address::any_v4().to_string() == "0.0.0.0");
  CHECK(ip_address::any_v6().to_string() == "::");
  CHECK(ip_address::loopback_v4().to_string() == "127.0.0.1");
  CHECK(ip_address::loopback_v6().to_string() == "::1");
  CHECK(ip_address::v4(0xc0000201).to_string() == "192.0.2.1");
}

TEST_CASE("bytes come in network order, four or sixteen") {
  const ip_address v4 = ip_address::v4(0x01020304);
  CHECK(v4.bytes().size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(std::to_integer<std::size_t>(v4.bytes()[i]) == i + 1);

  octets bytes;
  for (std::size_t i = 0; i < 16; ++i) bytes[i] = static_cast<std::byte>(i + 1);
  const ip_address v6 = ip_address::v6(bytes, 7);
  const no_interfaces numbers_only;
  CHECK(v6.bytes().size() == 16);
  CHECK(std::equal(bytes.begin(), bytes.end(), v6.bytes().begin()));
  CHECK(v6.scope_id() == 7);
  CHECK(v6.to_string() == "102:304:506:708:90a:b0c:d0e:f10%7");
}

TEST_CASE("multicast is 224.0.0.0/4 and ff00::/8") {
  CHECK(address_of("224.0.0.0").is_multicast());
  CHECK(address_of("239.255.255.255").is_multicast());
  CHECK(address_of("ff02::1").is_multicast());
  CHECK(address_of("ff00::").is_multicast());
  CHECK_FALSE(address_of("223.255.255.255").is_multicast());
  CHECK_FALSE(address_of("240.0.0.0").is_multicast());
  CHECK_FALSE(address_of("255.255.255.255").is_multicast());
  CHECK_FALSE(address_of("fe80::1").is_multicast());
  CHECK_FALSE(address_of("e000::").is_multicast());
  CHECK_FALSE(ip_address::any_v6().is_multicast());
}

TEST_CASE("IPv4 text is four decimal numbers") {
  CHECK(address_of("0.0.0.0") == ip_address::v4(0));
  CHECK(address_of("127.0.0.1") == ip_address::loopback_v4());
  CHECK(address_of("255.255.255.255") == ip_address::v4(0xffffffff));
  CHECK(address_of("1.20.100.0") == ip_address::v4(0x01146400));
}

TEST_CASE("every IPv4 number is parsed and formatted") {
  for (std::uint32_t number = 0; number < 256; ++number) {
    const std::string text = "1." + std::to_string(number) + ".2." + std::to_string(255 - number);
    const ip_address expected = ip_address::v4(0x01000200 | number << 16 | (255 - number));
    CHECK(address_of(text) == expected);
    CHECK(expected.to_string() == text);
  }
}

TEST_CASE("any other IPv4 text is invalid_argument") {
  using namespace std::string_view_literals;
  refuse_address("", "1", "1.2", "1.2.3", "1.2.3.", "1.2.3.4.", ".1.2.3.4", "1..2.3", "1.2.3.4.5",
                 "256.0.0.0", "0.0.0.256", "1.2.3.999", "1.2.3.4294967297", "1.2.3.18446744073709551617",
                 "01.2.3.4", "1.2.3.04", "1.2.3.00", "0000.0.0.0", "010.0.0.1", "0x7f.0.0.1", "2130706433",
                 "127.1", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "1.2. 3.4", "+1.2.3.4", "-1.2.3.4", "1.2.3.-4",
                 "1,2,3,4", "a.b.c.d", "1.2.3.f", "1.2.3.4%eth0", "1.2.3.4%1", "1.2.3.4/24", "[1.2.3.4]",
                 "localhost", "\xd9\xa1.2.3.4", "1.2.3.4:80");
  refuse_address("1.2.3.4\0"sv, "1.2.3.\0"sv);
}

TEST_CASE("every IPv6 form of RFC 4291 section 2.2 is parsed") {
  CHECK(address_of("::") == ip_address::any_v6());
  CHECK(address_of("::1") == ip_address::loopback_v6());
  CHECK(address_of("1::") == groups(1, 0, 0, 0, 0, 0, 0, 0));
  CHECK(address_of("ABCD:EF01:2345:6789:ABCD:EF01:2345:6789") ==
        groups(0xabcd, 0xef01, 0x2345, 0x6789, 0xabcd, 0xef01, 0x2345, 0x6789));
  CHECK(address_of("2001:DB8:0:0:8:800:200C:417A") == groups(0x2001, 0xdb8, 0, 0, 8, 0x800, 0x200c, 0x417a));
  CHECK(address_of("2001:DB8::8:800:200C:417A") == groups(0x2001, 0xdb8, 0, 0, 8, 0x800, 0x200c, 0x417a));
  CHECK(address_of("FF01:0:0:0:0:0:0:101") == groups(0xff01, 0, 0, 0, 0, 0, 0, 0x101));
  CHECK(address_of("ff01::101") == groups(0xff01, 0, 0, 0, 0, 0, 0, 0x101));
  CHECK(address_of("0000:0000:0000:0000:0000:0000:0000:0001") == ip_address::loopback_v6());
  CHECK(address_of("1:2:3:4:5:6:7::") == groups(1, 2, 3, 4, 5, 6, 7, 0));
  CHECK(address_of("::2:3:4:5:6:7:8") == groups(0, 2, 3, 4, 5, 6, 7, 8));
  CHECK(address_of("1:2:3::5:6:7:8") == groups(1, 2, 3, 0, 5, 6, 7, 8));
  CHECK(address_of("::13.1.68.3") == groups(0, 0, 0, 0, 0, 0, 0x0d01, 0x4403));
  CHECK(address_of("0:0:0:0:0:0:13.1.68.3") == groups(0, 0, 0, 0, 0, 0, 0x0d01, 0x4403));
  CHECK(address_of("::FFFF:129.144.52.38") == groups(0, 0, 0, 0, 0, 0xffff, 0x8190, 0x3426));
  CHECK(address_of("1:2:3:4:5:6:1.2.3.4") == groups(1, 2, 3, 4, 5, 6, 0x0102, 0x0304));
  CHECK(address_of("1:2:3:4:5::1.2.3.4") == groups(1, 2, 3, 4, 5, 0, 0x0102, 0x0304));
  CHECK(address_of("1::1.2.3.4") == groups(1, 0, 0, 0, 0, 0, 0x0102, 0x0304));
}

TEST_CASE("any other IPv6 text is invalid_argument") {
  using namespace std::string_view_literals;
  refuse_address(":", ":::", "::::", ":1", "1:", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7",
                 ":1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:", "1:2:3:4:5:6:7:8:9",
                 "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1::2::3", "::1::", "1:::2",
                 "::1:", "12345::", "::00001", "::g", "::-1", "::+1", "::0x1", " ::1", "::1 ", ":: 1",
                 "1.2.3.4::", "1.2.3.4:1:2:3:4:5:6", "::1.2.3.4:5", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256",
                 "::01.2.3.4", "::1.2.3.4.", "::.1.2.3", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4",
                 "1:2:3:4:5:6::1.2.3.4", "1:2:3:4:5:6:7::1.2.3.4", "[::1]", "::1/64", "\xff::1");
  refuse_address("::1\0"sv, "::\0"sv);
}

TEST_CASE("IPv6 is formatted as RFC 5952 requires") {
  const auto canonical = [](std::string_view text) { return address_of(text).to_string(); };
  // Section 4.1: no leading zeros, but a zero group keeps one digit.
  CHECK(canonical("2001:0db8::0001") == "2001:db8::1");
  CHECK(canonical("2001:db8:0:1:0:1:0:1") == "2001:db8:0:1:0:1:0:1");
  CHECK(canonical("0001:0010:0100:1000:000f:00f0:0f00:f000") == "1:10:100:1000:f:f0:f00:f000");
  // Section 4.2.1: as short as possible.
  CHECK(canonical("2001:db8:0:0:0:0:2:1") == "2001:db8::2:1");
  CHECK(canonical("2001:db8::0:1") == "2001:db8::1");
  // Section 4.2.2: a single group is not shortened.
  CHECK(canonical("2001:db8::1:1:1:1:1") == "2001:db8:0:1:1:1:1:1");
  CHECK(canonical("1:2:3:4:5:6:7::") == "1:2:3:4:5:6:7:0");
  CHECK(canonical("::2:3:4:5:6:7:8") == "0:2:3:4:5:6:7:8");
  // Section 4.2.3: the longest run, and the first of equal runs.
  CHECK(canonical("2001:0:0:1:0:0:0:1") == "2001:0:0:1::1");
  CHECK(canonical("2001:db8:0:0:1:0:0:1") == "2001:db8::1:0:0:1");
  CHECK(canonical("0:0:1:0:0:0:1:1") == "0:0:1::1:1");
  CHECK(canonical("0:0:1:2:3:4:0:0") == "::1:2:3:4:0:0");
  CHECK(canonical("0:0:0:1:2:0:0:0") == "::1:2:0:0:0");
  CHECK(canonical("1:0:0:2:3:0:0:0") == "1:0:0:2:3::");
  // Section 4.3: lower case.
  CHECK(canonical("2001:DB8::ABCD:EF") == "2001:db8::abcd:ef");
  // Section 5: an IPv4-mapped address is formatted with its IPv4 part.
  CHECK(canonical("::ffff:c000:201") == "::ffff:192.0.2.1");
  CHECK(canonical("::ffff:0:0") == "::ffff:0.0.0.0");
  CHECK(canonical("::fffe:c000:201") == "::fffe:c000:201");
  CHECK(canonical("1::ffff:c000:201") == "1::ffff:c000:201");
  CHECK(canonical("::192.0.2.1") == "::c000:201");
  CHECK(canonical("64:ff9b::192.0.2.1") == "64:ff9b::c000:201");
  // The run at either end, and the whole address.
  CHECK(canonical("0:0:0:0:0:0:0:0") == "::");
  CHECK(canonical("0:0:0:0:0:0:0:1") == "::1");
  CHECK(canonical("1:0:0:0:0:0:0:0") == "1::");
  CHECK(canonical("1:2:3:4:5:6:0:0") == "1:2:3:4:5:6::");
  CHECK(canonical("0:0:3:4:5:6:7:8") == "::3:4:5:6:7:8");
}

TEST_CASE("every pattern of zero groups survives formatting and parsing") {
  for (unsigned pattern = 0; pattern < 256; ++pattern) {
    std::array<std::uint16_t, 8> all{};
    for (std::size_t i = 0; i < 8; ++i) all[i] = static_cast<std::uint16_t>((pattern >> i & 1) * (i + 0xa0));
    const ip_address address = ip_address::v6(bytes_of(all));
    const std::string text = address.to_string();
    CAPTURE(text);
    CHECK(address_of(text) == address);
    CHECK(text.find(":::") == text.npos);
    CHECK(text.size() <= 39);
  }
}

TEST_CASE("random addresses survive formatting and parsing") {
  std::mt19937 random(5952);
  const auto draw = [&random](std::uint32_t bound) { return static_cast<std::uint32_t>(random()) % bound; };
  const no_interfaces numbers_only;
  for (int i = 0; i < 20'000; ++i) {
    const auto v4 = ip_address::v4(static_cast<std::uint32_t>(random()));
    std::array<std::uint16_t, 8> all{};
    for (auto& group : all) {
      if (draw(3) != 0) group = static_cast<std::uint16_t>(draw(0x10000) >> draw(16));
    }
    const std::uint32_t scope = draw(2) == 0 ? 0 : static_cast<std::uint32_t>(random()) >> draw(32);
    const auto v6 = ip_address::v6(bytes_of(all), scope);
    const auto port = static_cast<std::uint16_t>(draw(0x10000));
    for (const ip_address& address : {v4, v6}) {
      const ip_endpoint endpoint{address, port};
      const auto read = ip_address::parse(address.to_string());
      const auto read_endpoint = ip_endpoint::parse(endpoint.to_string());
      if (!read || *read != address || !read_endpoint || *read_endpoint != endpoint) {
        FAIL_CHECK(endpoint.to_string());
      }
    }
  }
}

#if defined(__GLIBC__)
TEST_CASE("ip_address::parse accepts the same texts as inet_pton, with the same values") {
  std::mt19937 random(4291);
  const auto draw = [&random](std::size_t bound) { return static_cast<std::size_t>(random()) % bound; };
  const std::string_view seeds[] = {
      "::",          "::1",           "1:2:3:4:5:6:7:8",     "1:2:3:4:5:6:1.2.3.4",
      "127.0.0.1",   "255.255.255.0", "fe80::abcd:ef01",     "::ffff:10.0.0.1",
      "1::3:4:5::8", "1.2.3.4",       "2001:db8:0:0:1::0:1", "0:0:0:0:0:0:0:0"};
  const std::string_view letters = "0123456789abcdefABCDEF::::....g x";
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text(seeds[draw(std::size(seeds))]);
    for (std::size_t changes = draw(4); changes != 0; --changes) {
      const std::size_t at = draw(text.size() + 1);
      const char letter = letters[draw(letters.size())];
      switch (draw(3)) {
        case 0: text.insert(text.begin() + static_cast<std::ptrdiff_t>(at), letter); break;
        case 1: text = text.substr(0, at) + text.substr(std::min(at + 1, text.size())); break;
        default:
          if (at < text.size()) text[at] = letter;
      }
    }
    octets bytes{};
    const bool v4 = inet_pton(AF_INET, text.c_str(), bytes.data()) == 1;
    const bool valid = v4 || inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1;
    const auto parsed = ip_address::parse(text);
    accepted += valid;
    bool same = parsed.has_value() == valid;
    if (same && valid) {
      same = parsed->is_v4() == v4 && std::memcmp(parsed->bytes().data(), bytes.data(), v4 ? 4 : 16) == 0;
    }
    if (!same) FAIL_CHECK(text);
  }
  CHECK(accepted > 10'000);
}
#endif

TEST_CASE("parsing arbitrary bytes returns a value that survives formatting, or an error") {
  std::mt19937 random(1);
  using namespace std::string_view_literals;
  const std::string_view letters = "01234567abef::::....%[]\0\xff "sv;
  const fake_interfaces interfaces;
  for (int i = 0; i < 100'000; ++i) {
    std::string text(random() % 24, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    if (const auto address = ip_address::parse(text)) {
      if (address_of(address->to_string()) != *address) FAIL_CHECK(text);
    }
    if (const auto endpoint = ip_endpoint::parse(text)) {
      if (endpoint_of(endpoint->to_string()) != *endpoint) FAIL_CHECK(text);
    }
  }
}

TEST_CASE("a scope can be the number of an interface") {
  const no_interfaces numbers_only;
  CHECK(address_of("fe80::1%1").scope_id() == 1);
  CHECK(address_of("fe80::1%4294967295").scope_id() == 0xffffffff);
  CHECK(address_of("fe80::1%4294967295").to_string() == "fe80::1%4294967295");
  CHECK(address_of("::%7") == groups(0, 0, 0, 0, 0, 0, 0, 0, 7));
  CHECK(address_of("::ffff:1.2.3.4%7").to_string() == "::ffff:1.2.3.4%7");
  CHECK(address_of("fe80::1%0") == address_of("fe80::1"));
  refuse_address("fe80::1%", "fe80::1%4294967296", "fe80::1%99999999999999999999999999", "fe80::1%-1",
                 "fe80::1%+1", "fe80::1%1 ", "fe80::1% 1", "fe80::1%1%2", "fe80::1%%1", "fe80%1::1", "%1",
                 "fe80::1%eth0", "fe80::1%0x1");
}

TEST_CASE("a scope can be the name of an interface that the system knows") {
  const fake_interfaces interfaces;
  CHECK(address_of("fe80::1%eth0").scope_id() == 2);
  CHECK(address_of("fe80::1%eth0") == address_of("fe80::1%2"));
  CHECK(address_of("fe80::1%2").to_string() == "fe80::1%eth0");
  CHECK(address_of("fe80::1%9").to_string() == "fe80::1%9");
  CHECK(address_of("fe80::1%a]b:c%d").scope_id() == 5);
  CHECK(address_of("fe80::1%" + fake_interfaces::long_name()).scope_id() == 3);
  CHECK(ip_address::parse("fe80::1%" + fake_interfaces::long_name() + "x").error() == errc::invalid_argument);
  CHECK(ip_address::parse("fe80::1%" + std::string(100'000, 'x')).error() == errc::invalid_argument);
  CHECK(ip_address::parse("fe80::1%eth1").error() == errc::invalid_argument);
  CHECK(ip_address::parse("fe80::1%").error() == errc::invalid_argument);
  CHECK(ip_address::parse(std::string_view("fe80::1%eth0\0", 13)).error() == errc::invalid_argument);
  CHECK(ip_address::parse(std::string_view("fe80::1%eth0\0x", 14)).error() == errc::invalid_argument);
}

TEST_CASE("digits are always a number, even if an interface has that name") {
  const fake_interfaces interfaces;
  CHECK(address_of("fe80::1%17").scope_id() == 17);
  const ip_address address = address_of("fe80::1%4");  // whose name is "17"
  CHECK(address.to_string() == "fe80::1%4");
  CHECK(address_of(address.to_string()) == address);
}

TEST_CASE("addresses are ordered: IPv4 before IPv6, then by bytes, then by scope") {
  const no_interfaces numbers_only;
  const char* ascending[] = {"0.0.0.0", "0.0.0.1", "1.0.0.0", "127.0.0.1", "128.0.0.0", "255.255.255.255",
                             "::",      "::1",     "::1%1",   "::1%2",     "::2",       "1::",
                             "7f00::",  "8000::",  "fe80::1", "fe80::1%1", "ffff::"};
  for (std::size_t i = 0; i < std::size(ascending); ++i) {
    for (std::size_t j = 0; j < std::size(ascending); ++j) {
      const ip_address a = address_of(ascending[i]), b = address_of(ascending[j]);
      CAPTURE(ascending[i]);
      CAPTURE(ascending[j]);
      CHECK((a == b) == (i == j));
      CHECK((a < b) == (i < j));
      CHECK((a <=> b) == (i <=> j));
    }
  }
  CHECK(address_of("::ffff:1.2.3.4") != address_of("1.2.3.4"));
}

TEST_CASE("endpoints are ordered by address, then by port") {
  CHECK(endpoint_of("1.2.3.4:80") == ip_endpoint{ip_address::v4(0x01020304), 80});
  CHECK(endpoint_of("1.2.3.4:80") != endpoint_of("1.2.3.4:81"));
  CHECK(endpoint_of("1.2.3.4:80") < endpoint_of("1.2.3.4:81"));
  CHECK(endpoint_of("1.2.3.4:81") < endpoint_of("1.2.3.5:80"));
  CHECK(endpoint_of("255.0.0.0:81") < endpoint_of("[::]:80"));
}

TEST_CASE("an endpoint is an address, a colon and a port") {
  const fake_interfaces interfaces;
  CHECK(endpoint_of("127.0.0.1:80") == ip_endpoint{ip_address::loopback_v4(), 80});
  CHECK(endpoint_of("[::1]:80") == ip_endpoint{ip_address::loopback_v6(), 80});
  CHECK(endpoint_of("[fe80::1%eth0]:80") == ip_endpoint{groups(0xfe80, 0, 0, 0, 0, 0, 0, 1, 2), 80});
  CHECK(endpoint_of("[fe80::1%3]:80").address.scope_id() == 3);
  CHECK(endpoint_of("[fe80::1%a]b:c%d]:80") == ip_endpoint{groups(0xfe80, 0, 0, 0, 0, 0, 0, 1, 5), 80});
  CHECK(endpoint_of("0.0.0.0:0") == ip_endpoint{});
  CHECK(endpoint_of("0.0.0.0:65535").port == 65535);
  CHECK(endpoint_of("0.0.0.0:00080").port == 80);
  CHECK(endpoint_of("[fe80::1%eth0]:80").to_string() == "[fe80::1%eth0]:80");
  CHECK(endpoint_of("[fe80::1%a]b:c%d]:80").to_string() == "[fe80::1%a]b:c%d]:80");
  CHECK(endpoint_of("[2001:DB8:0::1]:8080").to_string() == "[2001:db8::1]:8080");
  CHECK(endpoint_of("[::ffff:1.2.3.4]:1").to_string() == "[::ffff:1.2.3.4]:1");
  CHECK(endpoint_of("1.2.3.4:65535").to_string() == "1.2.3.4:65535");
}

TEST_CASE("any other endpoint text is invalid_argument") {
  using namespace std::string_view_literals;
  refuse_endpoint("", ":", ":80", "80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:4294967376",
                  "127.0.0.1:18446744073709551696", "127.0.0.1:-1", "127.0.0.1:+80", "127.0.0.1: 80",
                  "127.0.0.1:80 ", " 127.0.0.1:80", "127.0.0.1 :80", "127.0.0.1:0x50", "127.0.0.1:http",
                  "127.0.0.1:80:80", "[127.0.0.1]:80", "::1", "::1:80", "[::1]", "[::1]:", "[::1]80",
                  "[::1:80", "::1]:80", "[[::1]]:80", "[]:80", "[:80", "]:80", "[::1]:65536", "[::1]::80",
                  "[::1] :80", "1:2:3:4:5:6:7:8:80", "localhost:80", "[fe80::1%]:80", "[fe80::1]%eth0:80",
                  "fe80::1%eth0:80");
  refuse_endpoint("127.0.0.1:80\0"sv);
}

TEST_CASE("every port is parsed and formatted") {
  for (std::uint32_t port = 0; port < 65536; ++port) {
    const ip_endpoint endpoint{ip_address::loopback_v4(), static_cast<std::uint16_t>(port)};
    const auto parsed = ip_endpoint::parse(endpoint.to_string());
    if (!parsed || *parsed != endpoint) FAIL_CHECK(port);
  }
}

TEST_CASE("an endpoint is converted to a sockaddr") {
  sockaddr_storage storage;
  std::memset(&storage, 0xff, sizeof storage);
  CHECK(endpoint_of("1.2.3.4:4660").to_sockaddr(storage) == sizeof(sockaddr_in));
  sockaddr_in v4;
  std::memcpy(&v4, &storage, sizeof v4);
  CHECK(v4.sin_family == AF_INET);
  CHECK(v4.sin_port == htons(0x1234));
  CHECK(v4.sin_addr.s_addr == htonl(0x01020304));

  std::memset(&storage, 0xff, sizeof storage);
  CHECK(endpoint_of("[fe80::1%7]:4660").to_sockaddr(storage) == sizeof(sockaddr_in6));
  sockaddr_in6 v6;
  std::memcpy(&v6, &storage, sizeof v6);
  CHECK(v6.sin6_family == AF_INET6);
  CHECK(v6.sin6_port == htons(0x1234));
  CHECK(v6.sin6_flowinfo == 0);
  CHECK(v6.sin6_scope_id == 7);
  CHECK(std::memcmp(&v6.sin6_addr, address_of("fe80::1").bytes().data(), 16) == 0);
  const char* rest = reinterpret_cast<const char*>(&storage);
  CHECK(std::all_of(rest + sizeof v6, rest + sizeof storage, [](char c) { return c == 0; }));
}

TEST_CASE("a sockaddr of any alignment is converted to an endpoint, and an incomplete one is rejected") {
  for (const char* text : {"1.2.3.4:4660", "0.0.0.0:0", "255.255.255.255:65535", "[fe80::1%4000000000]:4660",
                           "[::]:0", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"}) {
    CAPTURE(text);
    const ip_endpoint endpoint = endpoint_of(text);
    sockaddr_storage storage;
    const std::size_t whole = endpoint.to_sockaddr(storage);
    for (std::size_t size = 0; size <= sizeof storage; ++size) {
      CAPTURE(size);
      const raw_sockaddr raw(&storage, size);
      const auto read = ip_endpoint::from_sockaddr(raw.data(), raw.size());
      CHECK(read.has_value() == (size >= whole));
      if (read) {
        CHECK(*read == endpoint);
      } else {
        CHECK(read.error() == errc::invalid_argument);
        CHECK(read.error().operation() == "ip_endpoint");
      }
    }
  }
}

TEST_CASE("only IPv4 and IPv6 sockaddrs are endpoints") {
  sockaddr_storage storage{};
  for (const int family : {AF_UNSPEC, AF_UNIX, 0xff}) {
    storage.ss_family = static_cast<sa_family_t>(family);
    const auto read = ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), sizeof storage);
    CHECK(read.error() == errc::invalid_argument);
  }
  CHECK(ip_endpoint::from_sockaddr(nullptr, 0).error() == errc::invalid_argument);
  CHECK(ip_endpoint::from_sockaddr(nullptr, sizeof storage).error() == errc::invalid_argument);
}

TEST_CASE("an IPv4-mapped peer is reported as IPv4") {
  sockaddr_storage storage;
  const auto peer = [&storage](const char* text) {
    const socklen_t size = endpoint_of(text).to_sockaddr(storage);
    return ip_endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&storage), size)
        .value_or(ip_endpoint());
  };
  CHECK(peer("[::ffff:1.2.3.4]:80") == endpoint_of("1.2.3.4:80"));
  CHECK(peer("[::ffff:255.0.0.1%2]:80") == endpoint_of("255.0.0.1:80"));
  CHECK(peer("[::1.2.3.4]:80") == endpoint_of("[::1.2.3.4]:80"));
  CHECK(peer("[1::ffff:1.2.3.4]:80") == endpoint_of("[1::ffff:1.2.3.4]:80"));
}

TEST_CASE("on the BSDs the length field of a sockaddr is set") {
  struct bsd_storage {
    std::uint8_t ss_len = 0;
  } storage;
  struct bsd_unix {
    std::uint8_t sun_len = 0;
  } name;
  struct other {
    std::uint8_t family = 0;
  } plain;
  anyio::detail::set_sockaddr_size(storage, 28);
  anyio::detail::set_sockaddr_size(name, 106);
  anyio::detail::set_sockaddr_size(plain, 16);
  CHECK(storage.ss_len == 28);
  CHECK(name.sun_len == 106);
  CHECK(plain.family == 0);
}

TEST_CASE("the path of a UNIX socket may contain any bytes") {
  CHECK(unix_round_trip("/run/some.sock") == "/run/some.sock");
  CHECK(unix_round_trip("relative path") == "relative path");
  CHECK(unix_round_trip("\xff\xfe\n\x01") == "\xff\xfe\n\x01");
  for (int c = 1; c < 256; ++c) {
    const std::string path(3, static_cast<char>(c));
    CHECK(unix_round_trip(path) == path);
  }
}

TEST_CASE("a UNIX path is passed to the kernel with its NUL") {
  const auto address = anyio::detail::make_unix_address("/tmp/x", "bind");
  CHECK(address.has_value());
  if (!address) return;
  CHECK(address->storage.sun_family == AF_UNIX);
  CHECK(address->size == path_offset + 7);
  CHECK(std::string(address->storage.sun_path) == "/tmp/x");
}

TEST_CASE("a UNIX path may fill the structure except for its NUL") {
  for (std::size_t length = 1; length < path_room; ++length) {
    const std::string path(length, 'p');
    CHECK(unix_round_trip(path) == path);
    CHECK(anyio::detail::make_unix_address(path, "bind")->size == path_offset + length + 1);
  }
  for (const std::size_t length : {path_room, path_room + 1, std::size_t{4096}, std::size_t{1'000'000}}) {
    const auto address = anyio::detail::make_unix_address(std::string(length, 'p'), "connect");
    CHECK(address.error() == errc::os_error);
    CHECK(address.error().os_error() == ENAMETOOLONG);
    CHECK(address.error().operation() == "connect");
  }
#if defined(__linux__)
  CHECK(anyio::detail::make_unix_address(std::string(107, 'p'), "bind").has_value());
  CHECK_FALSE(anyio::detail::make_unix_address(std::string(108, 'p'), "bind").has_value());
#endif
}

TEST_CASE("an empty path is an unnamed UNIX socket") {
  const auto address = anyio::detail::make_unix_address("", "bind");
  CHECK(address.has_value());
  if (!address) return;
  CHECK(address->size == path_offset);
  CHECK(unix_round_trip("") == "");
  const sockaddr_un& raw = address->storage;
  CHECK(unix_path_of(raw, 0) == "");
  CHECK(unix_path_of(raw, path_offset) == "");
  CHECK(anyio::detail::unix_path(nullptr, 0) == "");
  CHECK(anyio::detail::unix_path(nullptr, 100) == "");
}

TEST_CASE("a UNIX path with a NUL inside is rejected, since the kernel would truncate it") {
  for (const std::string& path : {std::string("a\0", 2), std::string("a\0b", 3), std::string("/x\0", 3)}) {
    const auto address = anyio::detail::make_unix_address(path, "bind");
    CHECK(address.error() == errc::os_error);
    CHECK(address.error().os_error() == EINVAL);
    CHECK(address.error().operation() == "bind");
  }
}

#if defined(__linux__)

TEST_CASE("an abstract name keeps its exact bytes, NULs included") {
  for (const std::string& name : {std::string("\0", 1), std::string("\0name", 5), std::string("\0a\0b\0", 5),
                                  std::string(108, '\0'), '\0' + std::string(107, '\xff')}) {
    CHECK(unix_round_trip(name) == name);
    CHECK(anyio::detail::make_unix_address(name, "bind")->size == path_offset + name.size());
  }
  const auto too_long = anyio::detail::make_unix_address('\0' + std::string(108, 'a'), "bind");
  CHECK(too_long.error() == errc::os_error);
  CHECK(too_long.error().os_error() == ENAMETOOLONG);
}

TEST_CASE("the kernel's length ends a reported abstract name") {
  const auto address = anyio::detail::make_unix_address(std::string("\0abcdef", 7), "bind");
  CHECK(address.has_value());
  if (!address) return;
  for (std::size_t length = 0; length <= path_room; ++length) {
    std::string expected("\0abcdef", 7);
    expected.resize(length);
    CHECK(unix_path_of(address->storage, path_offset + length) == expected);
  }
}

#else

TEST_CASE("abstract names are not_supported on systems without them") {
  const auto address = anyio::detail::make_unix_address(std::string("\0name", 5), "bind");
  CHECK(address.error() == errc::not_supported);
}

#endif

TEST_CASE("a reported UNIX path without NUL, or longer than the structure, is read within bounds") {
  sockaddr_un raw{};
  raw.sun_family = AF_UNIX;
  std::memset(raw.sun_path, 'p', sizeof raw.sun_path);
  for (const std::size_t beyond : {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{1000}}) {
    CHECK(unix_path_of(raw, sizeof raw + beyond) == std::string(path_room, 'p'));
  }
  for (std::size_t length = 0; length <= path_room; ++length) {
    const raw_sockaddr cut(&raw, path_offset + length);
    CHECK(anyio::detail::unix_path(cut.data(), cut.size()) == std::string(length, 'p'));
  }
  for (std::size_t size = 0; size <= path_offset; ++size) {
    const raw_sockaddr cut(&raw, size);
    CHECK(anyio::detail::unix_path(cut.data(), cut.size()) == "");
  }
}

TEST_CASE("a sockaddr of another family has no UNIX path") {
  sockaddr_storage storage;
  const socklen_t size = endpoint_of("1.2.3.4:80").to_sockaddr(storage);
  CHECK(anyio::detail::unix_path(reinterpret_cast<const sockaddr*>(&storage), size) == "");
}
