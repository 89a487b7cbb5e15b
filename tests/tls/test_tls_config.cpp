// Every engine reports an error in the configuration with its field and the same text.
#include "anyio_net.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/certificates.hpp"
#include "support/temp_dir.hpp"
#include "support/tls_engines.hpp"

namespace {

using anyio::errc;
using anyio::tls_config;
using anyio::tls_verify;
using support::certificate_der;
using support::certificate_text;
using support::for_every_library;
using support::make_context;
using support::tls_context_ptr;
using support::tls_library;
using support::tls_link;

/// Keeps a text until the program ends, since a configuration only refers to it.
std::string_view kept(const std::string& text) {
  static std::map<std::string, std::string> texts;
  return texts.try_emplace(text, text).first->second;
}
std::string_view path(std::string_view name) { return kept(support::certificate(name)); }
std::string_view pem(std::string_view name) { return kept(certificate_text(name)); }

const std::string framed_garbage =
    "-----BEGIN PRIVATE KEY-----\nR2FyYmFnZSwgYnV0IHdlbGwgZnJhbWVkLg==\n-----END PRIVATE KEY-----\n";

std::string half(std::string_view text) { return std::string(text.substr(0, text.size() / 2)); }

/// A rejected configuration, and its complete message.
struct refused_config {
  std::string_view title;
  tls_config config;
  errc code;
  std::string_view message;
};

refused_config refused(std::string_view title, errc code, std::string_view message, auto change) {
  refused_config r = {title, {}, code, message};
  change(r.config);
  return r;
}

/// The operation is all of a message but its last part.
std::string_view field_of(std::string_view message) { return message.substr(0, message.find(": ", 5)); }

void check_refused(const anyio::error& error, const refused_config& e) {
  CHECK(error.code() == e.code);
  CHECK(error.operation() == field_of(e.message));
  CHECK(error.message() == e.message);
}

/// A configuration is good if a handshake with its context succeeds.
void check_serves(const tls_library& library, const tls_config& config,
                  std::string_view shown = "server.pem") {
  const auto made = library.make(config);
  CHECK(made.has_value());
  if (!made) {
    CHECK(made.error().message() == "");
    return;
  }
  tls_link link(make_context(library, {}), "localhost", *made);
  CHECK(link.handshake());
  CHECK((link.client.engine->info().peer_certificate_der == certificate_der(shown)));
}

std::vector<refused_config> unreadable_files() {
  std::vector<refused_config> all;
  struct field {
    std::string_view name;
    std::string_view tls_config::*file;
  };
  struct file {
    std::string_view path;
    std::string_view why;
  };
  const field fields[] = {
      {"tls: ca_file", &tls_config::ca_file},
      {"tls: certificate_file", &tls_config::certificate_file},
      {"tls: private_key_file", &tls_config::private_key_file},
  };
  const file files[] = {
      {path("missing.pem"), "no such file (ENOENT)"},
      {kept(support::certificate_dir()), "is a directory (EISDIR)"},
      {path("server.pem/server.pem"), "not a directory (ENOTDIR)"},
      {path(std::string(300, 'n')), "name too long (ENAMETOOLONG)"},
      {kept(support::certificate("ca.pem") + '\0'), "no such file (ENOENT)"},
      {kept(support::certificate("ca.pem") + std::string("\0.pem", 5)), "no such file (ENOENT)"},
      {kept(std::string(1, '\0')), "no such file (ENOENT)"},
      {"/dev/zero", "file too large (EFBIG)"},
  };
  for (const field& f : fields) {
    for (const file& in : files) {
      const std::string_view message = kept(std::string(f.name) + ": " + std::string(in.why));
      all.push_back(refused(f.name, errc::tls, message, [&](tls_config& c) {
        c.certificate_file = path("server.pem");
        c.private_key_file = path("server.key");
        c.*f.file = in.path;
      }));
    }
  }
  return all;
}

std::vector<refused_config> contradictions() {
  constexpr errc invalid = errc::invalid_argument;
  constexpr std::string_view asks_anybody =
      "tls: verify_client: ca_file or ca_pem is required: public authorities issue certificates to anyone";
  static const std::string_view empty_protocol[] = {"h2", ""};
  static const std::string_view long_protocol[] = {kept(std::string(256, 'p'))};
  static const std::string_view nul_protocol[] = {kept(std::string("h\0002", 3))};
  static const std::vector<std::string_view> many_protocols(65, "h2");
  return {
      refused("authorities twice", invalid, "tls: ca_file: given both as file and as text",
              [](tls_config& c) {
                c.ca_file = path("ca.pem");
                c.ca_pem = pem("ca.pem");
              }),
      refused("a certificate twice", invalid, "tls: certificate_file: given both as file and as text",
              [](tls_config& c) {
                c.certificate_file = path("combined.pem");
                c.certificate_pem = pem("combined.pem");
              }),
      refused("a key twice", invalid, "tls: private_key_file: given both as file and as text",
              [](tls_config& c) {
                c.certificate_file = path("server.pem");
                c.private_key_file = path("server.key");
                c.private_key_pem = pem("server.key");
              }),
      refused("only a key's file", invalid,
              "tls: private_key_file: a private key is given without a certificate",
              [](tls_config& c) { c.private_key_file = path("server.key"); }),
      refused("only a key's text", invalid,
              "tls: private_key_pem: a private key is given without a certificate",
              [](tls_config& c) { c.private_key_pem = pem("server.key"); }),
      refused("an empty protocol", invalid, "tls: alpn: ALPN names must be 1 to 255 bytes",
              [](tls_config& c) { c.alpn = empty_protocol; }),
      refused("a long protocol", invalid, "tls: alpn: ALPN names must be 1 to 255 bytes",
              [](tls_config& c) { c.alpn = long_protocol; }),
      refused("a NUL in a protocol", invalid, "tls: alpn: ALPN names must be 1 to 255 bytes",
              [](tls_config& c) { c.alpn = nul_protocol; }),
      refused("clients of anybody's", invalid, asks_anybody,
              [](tls_config& c) {
                c.certificate_file = path("combined.pem");
                c.verify_client = tls_verify::peer;
              }),
      refused("clients of anybody's, who need not show it", invalid, asks_anybody,
              [](tls_config& c) { c.verify_client = tls_verify::optional; }),
      refused("many protocols", invalid, "tls: alpn: more than 64 ALPN names",
              [](tls_config& c) { c.alpn = many_protocols; }),
  };
}

std::vector<refused_config> wrong_authorities() {
  const auto text = [](std::string_view title, std::string_view content, std::string_view why) {
    return refused(title, errc::tls, kept("tls: ca_pem: " + std::string(why)),
                   [&](tls_config& c) { c.ca_pem = content; });
  };
  const auto file = [](std::string_view name, std::string_view why) {
    return refused(name, errc::tls, kept("tls: ca_file: " + std::string(why)),
                   [&](tls_config& c) { c.ca_file = path(name); });
  };
  return {
      file("empty.pem", "contains no certificate"),
      file("garbage.pem", "contains a certificate that cannot be read"),
      file("server.key", "contains no certificate"),
      text("no PEM", "certificate", "contains no certificate"),
      text("a path as a text", path("ca.pem"), "contains no certificate"),
      text("a key as a text", pem("ca.key"), "contains no certificate"),
      text("a certificate's half", kept(half(pem("ca.pem"))), "contains a certificate that cannot be read"),
      text("a good one and garbage", kept(certificate_text("ca.pem") + certificate_text("garbage.pem")),
           "contains a certificate that cannot be read"),
      text("garbage and a good one", kept(certificate_text("garbage.pem") + certificate_text("ca.pem")),
           "contains a certificate that cannot be read"),
      text("a good one and a half", kept(certificate_text("ca.pem") + half(pem("other_ca.pem"))),
           "contains a certificate that cannot be read"),
  };
}

std::vector<refused_config> wrong_certificates() {
  const auto with_key = [](std::string_view title, std::string_view content, std::string_view why) {
    return refused(title, errc::tls, kept("tls: certificate_pem: " + std::string(why)), [&](tls_config& c) {
      c.certificate_pem = content;
      c.private_key_file = path("server.key");
    });
  };
  const auto alone = [](std::string_view name, std::string_view why) {
    return refused(name, errc::tls, kept("tls: certificate_file: " + std::string(why)),
                   [&](tls_config& c) { c.certificate_file = path(name); });
  };
  const std::string server = certificate_text("server.pem");
  return {
      alone("server.pem", "contains no private key"),
      alone("server.key", "contains no certificate"),
      alone("empty.pem", "contains no certificate"),
      alone("garbage.pem", "contains a certificate that cannot be read"),
      with_key("a space", " ", "contains no certificate"),
      with_key("a path as a text", path("server.pem"), "contains no certificate"),
      with_key("a key as a text", pem("server.key"), "contains no certificate"),
      with_key("garbage", pem("garbage.pem"), "contains a certificate that cannot be read"),
      with_key("a half", kept(half(server)), "contains a certificate that cannot be read"),
      with_key("a good one and garbage", kept(server + certificate_text("garbage.pem")),
               "contains a certificate that cannot be read"),
      with_key("a good one and a half", kept(server + half(pem("ca.pem"))),
               "contains a certificate that cannot be read"),
      refused("no key in a text", errc::tls, "tls: certificate_pem: contains no private key",
              [](tls_config& c) { c.certificate_pem = pem("server.pem"); }),
  };
}

std::vector<refused_config> wrong_keys() {
  const auto text = [](std::string_view title, std::string_view content, std::string_view why) {
    return refused(title, errc::tls, kept("tls: private_key_pem: " + std::string(why)), [&](tls_config& c) {
      c.certificate_file = path("server.pem");
      c.private_key_pem = content;
    });
  };
  const auto pair = [](std::string_view certificate, std::string_view key, std::string_view why) {
    return refused(key, errc::tls, kept("tls: private_key_file: " + std::string(why)), [&](tls_config& c) {
      c.certificate_file = path(certificate);
      c.private_key_file = path(key);
    });
  };
  const auto secret = [](std::string_view key, std::string_view password, std::string_view why) {
    return refused(key, errc::tls, kept("tls: private_key_password: " + std::string(why)),
                   [&](tls_config& c) {
                     c.certificate_file = path("server.pem");
                     c.private_key_file = path(key);
                     c.private_key_password = password;
                   });
  };
  constexpr std::string_view other = "the private key does not belong to the certificate";
  constexpr std::string_view missing = "a password is required: the private key is encrypted";
  constexpr std::string_view wrong = "wrong password";
  std::vector<refused_config> all = {
      text("no PEM", "key", "contains no private key"),
      text("a path as a text", path("server.key"), "contains no private key"),
      text("garbage", framed_garbage, "contains a private key that cannot be read"),
      text("a half", kept(half(pem("server.key"))), "contains a private key that cannot be read"),
      text("an empty frame", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
           "contains a private key that cannot be read"),
      pair("server.pem", "server.pem", "contains no private key"),
      pair("server.pem", "empty.pem", "contains no private key"),
      pair("server.pem", "garbage.pem", "contains no private key"),
      pair("server.pem", "other.key", other),
      pair("server.pem", "rsa.key", other),
      pair("rsa.pem", "server.key", other),
      pair("combined.pem", "other.key", other),
  };
  static const std::string endless(100'000, 's');
  for (const std::string_view key : {"server_encrypted.key", "server_aes.key", "server_traditional.key"}) {
    all.push_back(secret(key, "", missing));
    for (const std::string_view password : {std::string_view("Secret"), std::string_view("s"),
                                            std::string_view("secret\0x", 8), std::string_view(endless)})
      all.push_back(secret(key, password, wrong));
  }
  return all;
}

TEST_CASE("tls config: unusable configurations are rejected, with the field and the reason") {
  std::vector<refused_config> all;
  for (const auto list :
       {unreadable_files, contradictions, wrong_authorities, wrong_certificates, wrong_keys})
    for (const refused_config& e : list()) all.push_back(e);
  for_every_library([&](const tls_library& library) {
    for (const refused_config& e : all) {
      CAPTURE(e.title);
      CAPTURE(e.message);
      const auto made = library.make(e.config);
      CHECK(!made.has_value());
      if (!made) check_refused(made.error(), e);
    }
  });
}

TEST_CASE("tls config: a file without read permission is reported as such") {
  if (::geteuid() == 0) return;  // root may read everything
  const support::temp_dir folder;
  const std::string file = folder.path("locked.pem");
  std::ofstream(file) << certificate_text("combined.pem");
  CHECK(::chmod(file.c_str(), 0) == 0);
  for_every_library([&](const tls_library& library) {
    tls_config config;
    config.certificate_file = file;
    const auto made = library.make(config);
    CHECK(!made.has_value());
    if (!made) CHECK(made.error().message() == "tls: certificate_file: permission denied (EACCES)");
  });
}

TEST_CASE("tls config: PEM text in place of a file name is not found, and its content is not printed") {
  struct field {
    std::string_view operation;
    std::string_view tls_config::*file;
    std::string_view text;
  };
  const field fields[] = {
      {"tls: ca_file", &tls_config::ca_file, pem("ca.pem")},
      {"tls: certificate_file", &tls_config::certificate_file, pem("combined.pem")},
      {"tls: private_key_file", &tls_config::private_key_file, pem("server.key")},
  };
  for_every_library([&](const tls_library& library) {
    for (const field& f : fields) {
      CAPTURE(f.operation);
      tls_config config;
      config.certificate_file = path("server.pem");
      config.private_key_file = path("server.key");
      config.*f.file = f.text;
      const auto made = library.make(config);
      CHECK(!made.has_value());
      if (made) continue;
      CHECK(made.error().code() == errc::tls);
      CHECK(made.error().os_error() != 0);
      CHECK(made.error().operation() == f.operation);
      CHECK(made.error().message().size() < 100);
      CHECK(made.error().message().find("BEGIN") == std::string::npos);
    }
  });
}

TEST_CASE("tls config: no message contains any part of a key or a password") {
  const std::string key = certificate_text("server.key");
  const std::string encrypted = certificate_text("server_encrypted.key");
  constexpr std::string_view password = "correct horse battery staple";
  for_every_library([&](const tls_library& library) {
    for (const std::string& text : {key, encrypted}) {
      for (std::size_t size = 0; size < text.size(); size += 13) {
        CAPTURE(size);
        const std::string cut = text.substr(0, size);
        tls_config config;
        config.certificate_file = path("server.pem");
        config.private_key_pem = cut;
        config.private_key_password = password;
        if (cut.empty()) config.certificate_pem = pem("server.pem");
        const auto made = library.make(config);
        CHECK(!made.has_value());
        if (made) continue;
        const std::string message = made.error().message();
        CHECK(message.find(password.substr(0, 7)) == std::string::npos);
        bool told = false;
        const std::size_t body = text.find('\n') + 1;
        for (std::size_t i = body; i + 8 <= text.size(); ++i)
          told = told || message.find(text.substr(i, 8)) != std::string::npos;
        CHECK(!told);
      }
    }
  });
}

TEST_CASE("tls config: a certificate truncated anywhere is rejected") {
  const std::string text = certificate_text("server.pem");
  const std::size_t end = text.find("-----END CERTIFICATE-----") + 24;
  for_every_library([&](const tls_library& library) {
    for (std::size_t size = 1; size < end; size += 11) {
      CAPTURE(size);
      const std::string cut = text.substr(0, size);
      tls_config config;
      config.certificate_pem = cut;
      config.private_key_file = path("server.key");
      const auto made = library.make(config);
      CHECK(!made.has_value());
      if (!made) CHECK(made.error().code() == errc::tls);
      if (!made) CHECK(made.error().operation() == "tls: certificate_pem");
    }
  });
}

// ---- accepted configurations ------------------------------------------------------------------------

std::string with_windows_lines(std::string_view text) {
  std::string changed;
  for (const char c : text) changed += c == '\n' ? "\r\n" : std::string(1, c);
  return changed;
}

TEST_CASE("tls config: a certificate and its key are read from files and from texts") {
  const std::string certificate = certificate_text("server.pem");
  const std::string key = certificate_text("server.key");
  const std::string older = certificate_text("server_older.key");
  const std::string parameters =
      "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
  struct example {
    std::string_view title;
    std::string certificate;
    std::string key;
  };
  const example texts[] = {
      {"one each", certificate, key},
      {"both in one", certificate + key, ""},
      {"the key first", key + certificate, ""},
      {"both in one, and the key again", certificate + key, key},
      {"without a line's end", certificate.substr(0, certificate.size() - 1), key.substr(0, key.size() - 1)},
      {"with other text around", "A certificate:\n" + certificate + "\nIts end.\n",
       "A key:\n" + key + "\nIts end.\n"},
      {"with Windows' lines", with_windows_lines(certificate), with_windows_lines(key)},
      {"an older key", certificate, older},
      {"an older key with its parameters", certificate, parameters + older},
      {"with others after it", certificate + certificate_text("ca.pem"), key},
      {"a key in the middle", certificate + key + certificate_text("ca.pem"), ""},
  };
  for_every_library([&](const tls_library& library) {
    for (const example& e : texts) {
      CAPTURE(e.title);
      tls_config config;
      config.certificate_pem = e.certificate;
      config.private_key_pem = e.key;
      check_serves(library, config);
    }
    tls_config one_file;
    one_file.certificate_file = path("combined.pem");
    check_serves(library, one_file);
    one_file.private_key_file = path("combined.pem");
    check_serves(library, one_file);
    tls_config mixed;
    mixed.certificate_pem = certificate;
    mixed.private_key_file = path("server.key");
    check_serves(library, mixed);
    tls_config older_rsa;
    older_rsa.certificate_file = path("rsa.pem");
    older_rsa.private_key_file = path("rsa_older.key");
    check_serves(library, older_rsa, "rsa.pem");
  });
}

TEST_CASE("tls config: a password decrypts an encrypted key, and is ignored for others") {
  for_every_library([](const tls_library& library) {
    for (const std::string_view key : {"server.key", "server_older.key", "server_encrypted.key",
                                       "server_aes.key", "server_traditional.key"}) {
      CAPTURE(key);
      tls_config config;
      config.certificate_file = path("server.pem");
      config.private_key_file = path(key);
      config.private_key_password = "secret";
      check_serves(library, config);
    }
    const std::string together = certificate_text("server.pem") + certificate_text("server_encrypted.key");
    tls_config config;
    config.certificate_pem = together;
    config.private_key_password = "secret";
    check_serves(library, config);
  });
}

TEST_CASE("tls config: all is read before the call returns") {
  for_every_library([](const tls_library& library) {
    std::string authority = certificate_text("ca.pem");
    std::string certificate = certificate_text("server.pem");
    std::string key = certificate_text("server_encrypted.key");
    std::string password = "secret";
    std::string protocol = "protocol";
    std::array<std::string_view, 1> protocols = {protocol};
    tls_config config;
    config.ca_pem = authority;
    config.certificate_pem = certificate;
    config.private_key_pem = key;
    config.private_key_password = password;
    config.alpn = protocols;
    const tls_context_ptr made = library.make(config).value();
    for (std::string* text : {&authority, &certificate, &key, &password, &protocol})
      text->assign(text->size(), '#');
    protocols = {};
    tls_link link(made, "localhost", made);
    CHECK(link.handshake());
    CHECK(link.client.engine->info().alpn == "protocol");
    CHECK(link.server.engine->info().alpn == "protocol");
  });
}

TEST_CASE("tls config: freed memory contains no part of a key or a password") {
  constexpr std::string_view password = "correct horse battery staple";
  const std::string key = certificate_text("server.key");
  const std::string encrypted = certificate_text("server_encrypted.key");
  const std::string combined = certificate_text("combined.pem");
  const support::temp_dir folder;
  const std::string pipe = folder.path("key.pipe");
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  struct example {
    std::string_view title;
    std::string_view tls_config::*field;
    std::string_view value;
    std::string_view secret;
  };
  const auto middle = [](std::string_view text) { return text.substr(text.size() / 2, 20); };
  const example examples[] = {
      {"a key as a text", &tls_config::private_key_pem, key, middle(key)},
      {"an encrypted key", &tls_config::private_key_pem, encrypted, password},
      {"an encrypted key's text", &tls_config::private_key_pem, encrypted, middle(encrypted)},
      {"a key's file", &tls_config::private_key_file, path("server.key"), middle(key)},
      {"a key's text in the place of its file", &tls_config::private_key_file, key, middle(key)},
      {"a key's file that is a pipe", &tls_config::private_key_file, pipe, middle(key)},
      {"a key beside authorities", &tls_config::ca_pem, combined, middle(key)},
      {"a key in a file of authorities", &tls_config::ca_file, path("combined.pem"), middle(key)},
  };
  for_every_library([&](const tls_library& library) {
    for (const example& e : examples) {
      CAPTURE(e.title);
      tls_config config;
      config.certificate_pem = pem("combined.pem");
      config.*e.field = e.value;
      config.private_key_password = e.secret == password ? password : "";
      std::thread writer;
      if (e.value == pipe) {
        writer = std::thread([&] { std::ofstream(pipe) << key << std::string(100'000, '\n'); });
      }
      const support::watch_freed watch(e.secret);
      static_cast<void>(library.make(config));
      if (writer.joinable()) writer.join();
      CHECK(!watch.seen());
    }
  });
}

TEST_CASE("tls config: the maximum number of ALPN names of the maximum size") {
  std::vector<std::string> names;
  for (char i = 0; i < 64; ++i) names.push_back(std::string(254, 'p') + static_cast<char>('0' + i));
  const std::vector<std::string_view> protocols(names.begin(), names.end());
  const std::string_view last[] = {protocols.back()};
  for_every_library([&](const tls_library& library) {
    tls_config config;
    config.ca_file = path("ca.pem");
    config.certificate_file = path("combined.pem");
    config.alpn = protocols;
    tls_config client = config;
    client.alpn = last;
    tls_link link(library.make(client).value(), "localhost", library.make(config).value());
    CHECK(link.handshake());
    CHECK((link.client.engine->info().alpn == last[0]));
  });
}

/// Sets another value in the environment for a while.
class environment {
 public:
  environment(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  environment(const environment&) = delete;
  environment& operator=(const environment&) = delete;
  ~environment() {
    if (before_.empty())
      ::unsetenv(name_);
    else
      ::setenv(name_, before_.c_str(), 1);
  }

 private:
  const char* name_;
  std::string before_;
};

TEST_CASE("tls config: without authorities only the system's are trusted") {
  const support::temp_dir folder;
  const std::string partly_good = folder.path("partly_good.pem");
  std::ofstream(partly_good) << certificate_text("garbage.pem") << certificate_text("ca.pem");
  struct example {
    std::string file;
    bool trusted;
  };
  const example examples[] = {
      {support::certificate("ca.pem"), true},        {partly_good, true},
      {support::certificate("other_ca.pem"), false}, {support::certificate("empty.pem"), false},
      {support::certificate("missing.pem"), false},  {support::certificate_dir(), false},
  };
  for_every_library([&](const tls_library& library) {
    for (const example& e : examples) {
      CAPTURE(e.file);
      const environment trust("SSL_CERT_FILE", e.file);
      const tls_context_ptr client = make_context(library, {.ca = ""});
      tls_link link(client, "localhost", make_context(library, {.certificate = "server"}));
      CHECK(link.handshake() == e.trusted);
      constexpr std::string_view unknown = anyio::detail::tls_reason::unknown_authority;
      if (!e.trusted) CHECK(link.client.engine->last_error() == unknown);
    }
    tls_link link(make_context(library, {.ca = ""}), "localhost",
                  make_context(library, {.certificate = "server"}));
    CHECK(!link.handshake());
  });
}

// ---- further certificates -----------------------------------------------------------------------------

TEST_CASE("tls config: a further certificate is rejected for the same reasons, and changes nothing then") {
  std::vector<refused_config> all;
  for (const auto list : {unreadable_files, wrong_certificates, wrong_keys})
    for (const refused_config& e : list())
      if (!e.message.starts_with("tls: ca")) all.push_back(e);
  for_every_library([&](const tls_library& library) {
    const tls_context_ptr server = make_context(library, {.certificate = "server"});
    for (const refused_config& e : all) {
      CAPTURE(e.title);
      CAPTURE(e.message);
      const anyio::result<> added = server->add_certificate("localhost", e.config);
      CHECK(!added.has_value());
      if (!added) check_refused(added.error(), e);
    }
    tls_link link(make_context(library, {}), "localhost", server);
    CHECK(link.handshake());
    CHECK((link.client.engine->info().peer_certificate_der == certificate_der("server.pem")));
  });
}

TEST_CASE("tls config: a further certificate requires a name and a certificate") {
  for_every_library([](const tls_library& library) {
    const tls_context_ptr server = make_context(library, {.certificate = "server"});
    tls_config good;
    good.certificate_file = path("other.pem");
    good.private_key_file = path("other.key");
    for (const std::string_view name : {"", ".", "two words", "127.0.0.1"}) {
      CAPTURE(name);
      const anyio::result<> added = server->add_certificate(name, good);
      CHECK(!added.has_value());
      if (!added) CHECK(added.error() == errc::invalid_argument);
      if (!added) CHECK(added.error().operation() == "add_certificate");
    }
    const anyio::result<> added = server->add_certificate("other.example", {});
    CHECK(!added.has_value());
    if (!added) CHECK(added.error() == errc::invalid_argument);
    if (!added) CHECK(added.error().operation() == "add_certificate");
    good.verify_client = tls_verify::peer;  // has no effect there
    CHECK(server->add_certificate("other.example.", good).has_value());
    tls_link link(make_context(library, {}), "other.example", server);
    CHECK(link.handshake());
  });
}

TEST_CASE("tls config: a custom hook need not support further certificates") {
  class own_context final : public anyio::tls_context {
   public:
    std::unique_ptr<anyio::tls_engine> client(anyio::tls_pipe&, std::string_view) override { return nullptr; }
    std::unique_ptr<anyio::tls_engine> server(anyio::tls_pipe&) override { return nullptr; }
  };
  own_context own;
  CHECK(own.add_certificate("localhost", {}).error() == errc::not_supported);
}

}  // namespace
