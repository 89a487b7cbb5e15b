// A network in memory: sockets of every kind, paths, names and signals, as in a kernel.
//
// It is a plain data structure with its own clock. Everything in transit is in one queue, ordered by the time
// of arrival; it arrives when the clock advances to that time. Descriptors are numbers for reference-counted
// sockets; a new socket gets the lowest free number, as on POSIX systems. Random decisions use the run's
// choices. This part must not know loops, operations or fault injection.
#pragma once

#include "base/address.hpp"
#include "base/config.hpp"
#include "base/slice.hpp"
#include "simulation/sim_choices.hpp"
#include "simulation/sim_options.hpp"
#include "system/backend.hpp"
#include "system/packet_info.hpp"

#if defined(ANYIO_NET_SIM)

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace anyio { inline namespace ANYIO_NET_ABI { namespace detail {

struct sim_socket;
using sim_handle = std::shared_ptr<sim_socket>;

/// Bytes that arrived together: a datagram, or a piece of a stream with its passed descriptors.
struct sim_chunk {
  std::string data;
  std::vector<sim_handle> passed;
  ip_endpoint from;       // of an IP datagram
  std::string from_path;  // of a UNIX datagram
  packet_info info;       // of an IP datagram
};

/// An event that will happen at some time at its destination.
struct sim_arrival {
  enum class kind : std::uint8_t {
    bytes,
    end,
    reset,
    retry,
    call,
    knock,
    established,
    refused,
    datagram,
    unreachable
  };
  kind what;
  std::weak_ptr<sim_socket> to;
  std::weak_ptr<sim_socket> from;
  sim_chunk chunk;
  ip_endpoint target;
  int error_number = 0;
  int tries = 0;
};

/// A socket. Several descriptors may refer to it, in this process or in transit in a message.
struct sim_socket : std::enable_shared_from_this<sim_socket> {
  enum class state : std::uint8_t { fresh, listening, connecting, connected, refused };

  int family = AF_UNIX;
  int type = SOCK_STREAM;
  state stage = state::fresh;
  std::uint64_t serial = 0;  // in order of creation
  int descriptors = 0;       // how many refer to it, including those in transit
  std::vector<int> numbers;  // those that are open

  bool bound = false;
  ip_endpoint local, remote;
  std::string local_path, remote_path;
  std::map<std::pair<int, int>, int> options;
  std::map<ip_address, std::set<ip_address>> groups;  // with the sources that are heard; none: all are

  // --- received and expected data
  std::deque<sim_chunk> inbox;
  std::size_t inbox_bytes = 0;
  std::size_t on_the_way = 0;    // bytes for a stream's window; messages for a UNIX datagram socket
  time_point last_arrival{};     // a stream keeps its order
  std::deque<sim_arrival> held;  // of a stream: sent again until the link works
  bool ended = false;            // the peer's end has arrived
  int broken = 0;                // an errno to be reported once
  bool reset = false;            // stays true after `broken` has been reported

  // --- the peer of a stream
  std::weak_ptr<sim_socket> peer;
  bool sending_over = false;
  bool receiving_over = false;
  bool told = false;     // a second call of connect has reported the connection
  bool roaming = false;  // has its local address only while it is connected
  bool unnamed = false;  // has its local port only while it is connected
  bool gone = false;     // no descriptor is left

  // --- a listener
  std::deque<sim_handle> accepted;
  std::size_t backlog = 0;

  [[nodiscard]] bool is_ip() const noexcept { return family != AF_UNIX; }
  [[nodiscard]] int option(int level, int name) const noexcept {
    const auto found = options.find({level, name});
    return found == options.end() ? 0 : found->second;
  }
};

/// The reason why a run ends before its program does.
enum class sim_verdict : std::uint8_t { none, deadlock, time_over, steps_over, spins };

class sim_network final : public security_service {
 public:
  static constexpr int first_descriptor = first_simulated_descriptor;

  explicit sim_network(const sim::options& options);
  ~sim_network();
  /// A backend on the network.
  [[nodiscard]] static std::unique_ptr<backend> make_backend(std::shared_ptr<sim_network> network);
  sim_network(const sim_network&) = delete;
  sim_network& operator=(const sim_network&) = delete;

  // --- time
  [[nodiscard]] time_point now() const noexcept { return now_; }
  [[nodiscard]] duration elapsed() const noexcept { return now_ - begin_; }
  /// Counts a call, and adds its result to the trace.
  void trace(const char* call, int fd, std::int64_t outcome);
  [[nodiscard]] std::uint64_t trace_hash() const noexcept { return hash_; }
  [[nodiscard]] sim_verdict verdict() const noexcept { return verdict_; }
  void end(sim_verdict v) noexcept {
    if (verdict_ == sim_verdict::none) verdict_ = v;
  }
  /// Advances the clock to the next arrival or to the deadline, whichever is first. Returns false at the
  /// deadline, at the time limit, or if nothing is in transit and there is no deadline.
  bool advance(time_point deadline);
  ANYIO_NET_FN std::int64_t calendar() override;
  ANYIO_NET_FN std::uint64_t entropy() override { return choices.noise(); }

  // --- readiness
  /// Watches both directions, or only `once` the given ones.
  int watch(int fd, std::uint64_t token, bool once = false, std::uint32_t interest = 0);
  void forget(int fd);
  /// The readiness of a socket.
  [[nodiscard]] std::uint32_t level(sim_socket& s) const;
  /// Reports the descriptors that have become ready, in an order that the choices decide. Returns their
  /// number.
  int collect(slice<poll_event> events);

  // --- sockets: like the calls of the backend
  int open(int family, int type);
  int open_pair(int family, int type, int (&fds)[2]);
  int bind(const sim_handle& s, const sockaddr* address, socklen_t size);
  int listen(const sim_handle& s, int backlog);
  int connect(const sim_handle& s, const sockaddr* address, socklen_t size);
  int accept(const sim_handle& s, sockaddr* address, socklen_t* size);
  int shutdown(const sim_handle& s, int how);
  int break_connection(const sim_handle& s);
  int close(int fd);
  ssize_t receive(const sim_handle& s, message& m, bool takes_control);
  ssize_t send(const sim_handle& s, const message& m);
  int get_option(const sim_handle& s, int level, int name, void* value, socklen_t* size);
  int set_option(const sim_handle& s, int level, int name, const void* value, socklen_t size);
  int address_of(const sim_handle& s, bool remote, sockaddr* address, socklen_t* size);
  /// The socket of a descriptor, null if it is not open.
  [[nodiscard]] sim_handle find(int fd) const;
  [[nodiscard]] bool is_open(int fd) const noexcept { return descriptors_.contains(fd); }
  /// The error for a number that is not open here: `-EOPNOTSUPP` for a descriptor of the real system,
  /// `-EBADF` for any other number.
  [[nodiscard]] int refusal(int fd) const noexcept;

  // --- paths, names, links, signals
  int identify(const char* path, file_identity& identity);
  int identify_socket(const sim_handle& s, file_identity& identity);
  int unlink(const char* path);
  resolved resolve(const std::string& host, std::uint16_t port, int family);
  void set_name(std::string_view name, std::span<const ip_address> addresses);
  void set_link(const ip_address& from, const ip_address& to, const sim::faults& faults);
  void set_latency(const sim::faults& faults) noexcept { everywhere_ = faults; }
  int catch_signal(int number);
  void release_signal(int number);
  bool take_signal(int number);
  void raise(int number);

  [[nodiscard]] std::size_t open_descriptors() const noexcept { return descriptors_.size(); }
  /// One line for each descriptor, like netstat's.
  [[nodiscard]] std::string dump() const;
  sim_choices choices;

 private:
  struct descriptor {
    sim_handle socket;
    std::uint64_t token = 0;
    std::uint32_t interest = 0;  // for watch_once
    bool watched = false;        // edge-triggered
    bool armed = false;          // watched once
    bool signalled = false;      // is in signalled_
  };
  using arrival = sim_arrival;
  int add(const sim_handle& socket);
  sim_handle make(int family, int type);
  void drop(const sim_handle& socket);
  void end_of_socket(sim_socket& s);
  void changed(sim_socket& s);
  [[nodiscard]] bool is_full(const sim_socket& to, const sim_socket& from) const;
  void signal(int fd, descriptor& d);

  [[nodiscard]] const sim::faults& link(const ip_address& from, const ip_address& to) const;
  /// Whether the link loses everything.
  [[nodiscard]] bool is_dead(const ip_address& from, const ip_address& to) const;
  [[nodiscard]] time_point arrival_time(const ip_address& from, const ip_address& to, bool reliable);
  void dispatch(time_point when, arrival a);
  void arrive(arrival& a);
  void arrive_bytes(sim_socket& s, sim_chunk&& chunk);
  void transmit(sim_socket& s, const sim_handle& peer, arrival a);
  void retry(arrival& a);
  void drop_held(sim_socket& s);
  void call(arrival& a);
  void call_again(arrival& a);
  void knock(arrival& a);
  void send_to_peer(sim_socket& s, arrival::kind what, int error_number = 0);
  void break_stream(sim_socket& s, int error_number);
  void stop_listening(sim_socket& s);
  void leave_peer(sim_socket& s);

  [[nodiscard]] bool read_address(const sim_socket& s, const sockaddr* address, socklen_t size,
                                  ip_endpoint& out) const;
  int bind_ip(const sim_handle& s, ip_endpoint at);
  int bind_any(const sim_handle& s);
  int bind_path(const sim_handle& s, const std::string& path);
  /// The live sockets of a type that are bound to a port, in the order of binding.
  [[nodiscard]] std::vector<sim_handle> bound_to(int type, std::uint16_t port) const;
  [[nodiscard]] bool is_taken(const sim_socket& s, const ip_endpoint& at) const;
  [[nodiscard]] sim_handle listener_at(const ip_endpoint& at);
  [[nodiscard]] std::vector<sim_handle> receivers_of(const ip_endpoint& target,
                                                     const ip_endpoint& from) const;
  [[nodiscard]] sim_handle at_path(const std::string& place) const;
  int connect_unix(const sim_handle& s, const std::string& path);
  void connect_ends(const sim_handle& a, const sim_handle& b);

  [[nodiscard]] std::size_t window_of(const sim_socket& to) const noexcept;
  ssize_t send_stream(const sim_handle& s, const message& m, std::vector<sim_handle>&& passed);
  ssize_t send_datagram(const sim_handle& s, const message& m, std::vector<sim_handle>&& passed);
  ssize_t receive_stream(sim_socket& s, message& m, bool takes_control);
  ssize_t receive_datagram(sim_socket& s, message& m, bool takes_control);
  int read_passed(const message& m, std::vector<sim_handle>& passed);
  void hand_over(std::vector<sim_handle>&& passed, message& m, bool takes_control);
  void drop_chunk(sim_chunk& chunk);

  time_point begin_;
  time_point now_;
  duration time_limit_;
  std::int64_t calendar_;
  std::uint64_t step_limit_;
  std::uint64_t spin_limit_;
  std::uint64_t steps_ = 0;
  std::uint64_t idle_steps_ = 0;  // since time passed or something was sent, received or accepted
  std::size_t next_listener_ = 0;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  void (*log_)(std::string_view);
  sim_verdict verdict_ = sim_verdict::none;
  sim::profile profile_;
  sim::faults everywhere_;
  std::map<std::pair<ip_address, ip_address>, sim::faults> links_;

  std::map<int, descriptor> descriptors_;
  std::set<int> free_;
  int next_ = first_descriptor;
  std::vector<int> signalled_;
  std::multimap<time_point, arrival> coming_;
  std::vector<std::weak_ptr<sim_socket>> all_;    // live sockets, and some expired entries
  std::vector<std::weak_ptr<sim_socket>> ports_;  // bound IP sockets, in the order of binding
  struct file {
    std::weak_ptr<sim_socket> socket;
    std::uint64_t inode = 0;
  };
  std::map<std::string, file> files_;
  std::uint64_t next_inode_ = 1;
  std::uint64_t next_serial_ = 1;
  std::uint16_t next_port_ = 32768;
  std::map<std::string, std::vector<ip_address>, std::less<>> names_;
  std::map<int, int> caught_;  // signal number: how many receivers
  std::set<int> pending_signals_;
};

}}}  // namespace anyio::detail

#endif
