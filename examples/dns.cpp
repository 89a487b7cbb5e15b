// Queries a name server (RFC 1035): over UDP, with retries, and over TCP if the answer does not fit.
//
//   g++ -std=c++20 -O2 -pthread -I. examples/dns.cpp -o dns
//   ./dns example.org AAAA
#include "anyio_net.hpp"

#include <array>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/printable.hpp"
#include "support/program.hpp"

using namespace std::chrono_literals;

static constexpr std::string_view help =
    "usage: dns [--server ADDRESS[:PORT]] NAME [TYPE]\n"
    "\n"
    "TYPE is A (the default), AAAA, CNAME, MX, NS, PTR or TXT. Without --server the first name server of\n"
    "/etc/resolv.conf is asked.\n"
    "\n"
    "exit code: 0 with an answer, 1 if there is none or no server is found, 2 for a wrong command line\n";

using octets = std::string;

struct record_type {
  std::string_view name;
  unsigned number;
};
static constexpr std::array<record_type, 7> types{
    {{"A", 1}, {"NS", 2}, {"CNAME", 5}, {"PTR", 12}, {"MX", 15}, {"TXT", 16}, {"AAAA", 28}}};
static constexpr std::array<std::string_view, 6> codes{
    "no error",     "the server rejected the query format",  "the server failed",
    "no such name", "the server does not support the query", "the server refused the query"};

// --- the query

static void put_number(octets& out, unsigned n) {
  out += static_cast<char>(n >> 8);
  out += static_cast<char>(n & 0xff);
}

// Empty if it is not a valid name: a label has 1 to 63 octets, and all labels together at most 255.
static octets encoded_name(std::string_view name) {
  octets out;
  if (name.ends_with('.')) name.remove_suffix(1);
  while (!name.empty()) {
    const std::string_view label = name.substr(0, name.find('.'));
    if (label.empty() || label.size() > 63) return {};
    out += static_cast<char>(label.size());
    out += label;
    name.remove_prefix(std::min(name.size(), label.size() + 1));
  }
  out += '\0';
  return out.size() <= 255 ? out : octets();
}

static octets question(unsigned id, const octets& name, unsigned type) {
  octets out;
  for (const unsigned n : {id, 0x0100u /* recursion, please */, 1u, 0u, 0u, 0u}) put_number(out, n);
  out += name;
  put_number(out, type);
  put_number(out, 1);  // IN
  return out;
}

// --- the answer, which is not trusted: reading stops at anything out of bounds

class reader {
 public:
  explicit reader(std::string_view message) : message_(message) {}

  [[nodiscard]] bool good() const { return good_; }
  unsigned number() {
    const unsigned high = byte();
    return high * 256 + byte();
  }
  unsigned byte() {
    const std::string_view one = take(1);
    return good_ ? static_cast<unsigned char>(one[0]) : 0;
  }
  std::string_view take(std::size_t n) {
    if (n > message_.size() - at_) good_ = false;
    if (!good_) return {};
    return message_.substr(std::exchange(at_, at_ + n), n);
  }
  std::string name() {
    std::string out;
    at_ = name_at(at_, out);
    return out.empty() ? "." : out;
  }
  [[nodiscard]] std::size_t position() const { return at_; }
  void go_to(std::size_t position) { at_ = position; }

 private:
  // Returns the end of the name. A pointer only goes backwards, so that pointers form no circle.
  std::size_t name_at(std::size_t at, std::string& out) {
    std::size_t end = 0;
    for (std::size_t before = at + 1; good_;) {
      const auto length = at < message_.size() ? static_cast<unsigned char>(message_[at]) : 0xffu;
      if (length == 0) return end != 0 ? end : at + 1;
      if (length >= 0xc0 && at + 1 < message_.size()) {
        if (end == 0) end = at + 2;
        at = (length & 0x3fu) * 256 + static_cast<unsigned char>(message_[at + 1]);
        if (at >= before) good_ = false;
        before = at;
      } else if (length < 64 && at + 1 + length < message_.size() && out.size() < 255) {
        out.append(message_.substr(at + 1, length)).append(".");
        at += 1 + length;
      } else {
        good_ = false;
      }
    }
    return at_;
  }

  std::string_view message_;
  std::size_t at_ = 0;
  bool good_ = true;
};

static std::string text_of(reader& from, unsigned type, std::size_t size) {
  const std::size_t end = from.position() + size;
  if (type == 1 && size == 4) {
    const std::string_view four = from.take(4);
    std::uint32_t number = 0;
    for (const char c : four) number = number << 8 | static_cast<unsigned char>(c);
    return anyio::ip_address::v4(number).to_string();
  }
  if (type == 28 && size == 16) {
    const std::string_view sixteen = from.take(16);
    if (!from.good()) return {};
    return anyio::ip_address::v6(std::as_bytes(std::span(sixteen)).first<16>()).to_string();
  }
  if (type == 15) {
    const unsigned preference = from.number();
    return std::to_string(preference) + " " + from.name();
  }
  if (type == 16) {
    std::string out;
    while (from.good() && from.position() < end) out.append(from.take(from.byte()));
    return '"' + out + '"';
  }
  if (type == 2 || type == 5 || type == 12) return from.name();
  return "(" + std::to_string(size) + " bytes of type " + std::to_string(type) + ")";
}

static bool is_answer_to(std::string_view message, const octets& asked) {
  return message.size() >= asked.size() && message.substr(0, 2) == asked.substr(0, 2) &&
         (message[2] & 0x80) != 0 &&
         message.substr(12, asked.size() - 12) == std::string_view(asked).substr(12);
}

// Prints the records; returns the exit code.
static int print(std::string_view message) {
  const unsigned code = static_cast<unsigned char>(message[3]) & 0x0fu;
  if (code != 0) {
    std::cerr << "dns: " << (code < codes.size() ? codes[code] : "the server returned an unknown error")
              << '\n';
    return 1;
  }
  reader from(message);
  from.take(4);
  const unsigned questions = from.number();
  const unsigned answers = from.number();
  from.take(4);
  for (unsigned n = 0; n < questions; ++n) {
    from.name();
    from.take(4);
  }
  for (unsigned n = 0; n < answers && from.good(); ++n) {
    const std::string owner = from.name();
    const unsigned type = from.number();
    from.take(6);  // class, time to live
    const std::size_t size = from.number();
    const std::size_t start = from.position();
    const std::string text = text_of(from, type, size);
    from.go_to(start);
    from.take(size);
    if (from.good()) std::cout << printable(owner + ' ' + text) << '\n';
  }
  if (!from.good()) return std::cerr << "dns: the answer is malformed\n", 1;
  if (answers == 0) return std::cerr << "dns: the name has no record of this type\n", 1;
  return 0;
}

// --- queries

static anyio::task<std::string> ask_by_tcp(const anyio::ip_endpoint& server, const octets& asked) {
  anyio::tcp_stream stream = co_await anyio::connect_tcp(server);
  octets framed;
  put_number(framed, static_cast<unsigned>(asked.size()));
  framed += asked;
  co_await stream.send(framed);
  anyio::buffered_stream answers(stream);
  const std::string size = co_await answers.receive_exactly(2);
  co_return co_await answers.receive_exactly(reader(size).number());
}

static anyio::task<std::string> ask(const anyio::ip_endpoint& server, const octets& asked) {
  auto socket = co_await anyio::create_connected_udp_socket(server);
  for (int tries = 0; tries < 3; ++tries) {
    co_await socket.send(asked);
    const auto deadline = anyio::now() + 2s;
    for (;;) {  // a datagram that does not answer this query may come from another sender
      auto answer = co_await anyio::move_on_at(deadline, socket.receive());
      if (!answer) break;
      if (!is_answer_to(*answer, asked)) continue;
      const bool cut_off = ((*answer)[2] & 0x02) != 0;
      if (cut_off) co_return co_await anyio::fail_after(5s, ask_by_tcp(server, asked));
      co_return *std::move(answer);
    }
  }
  co_await anyio::raise(anyio::error(anyio::errc::timed_out, 0, "dns"));
  co_return std::string();
}

static std::string configured_server() {
  std::ifstream file("/etc/resolv.conf");
  for (std::string word; file >> word;) {
    if (word == "nameserver" && file >> word) return word;
    std::getline(file, word);
  }
  return "127.0.0.1";
}

static std::optional<anyio::ip_endpoint> parse_server(std::string_view text) {
  if (const auto address = anyio::ip_address::parse(text)) return anyio::ip_endpoint{*address, 53};
  if (const auto endpoint = anyio::ip_endpoint::parse(text)) return *endpoint;
  return std::nullopt;
}

static anyio::task<int> program(anyio::ip_endpoint server, std::string_view name, unsigned type) {
  // Only the number, and the port that the kernel draws, distinguish an answer from a forged one.
  const octets asked = question(std::random_device()() & 0xffff, encoded_name(name), type);
  const std::string answer = co_await ask(server, asked);
  if (is_answer_to(answer, asked)) co_return print(answer);
  co_await anyio::raise({anyio::errc::protocol, 0, "the answer is for another query"});
  co_return 1;
}

static unsigned type_of(const std::vector<std::string_view>& words) {
  for (const record_type& t : types)
    if (words.size() == 2 && words[1] == t.name) return t.number;
  return words.size() == 1 ? 1 : 0;
}

int main(int argc, char** argv) {
  auto words = words_of(argc, argv, help, 1, 4);
  const bool named = words[0] == "--server" && words.size() > 2;
  const auto server = parse_server(named ? std::string(words[1]) : configured_server());
  if (named) words.erase(words.begin(), words.begin() + 2);
  const unsigned type = type_of(words);
  if (!server || type == 0 || encoded_name(words[0]).empty()) show_help(help, false);
  return run_program("dns", program(*server, words[0], type));
}
