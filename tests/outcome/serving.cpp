// Handlers that fail, end and are cancelled, one connection after another.
#include "trace.hpp"

#include <string>

using namespace outcome;

namespace {

task<> handle(tcp_stream stream) {
  noisy local("handler");
  std::string text = co_await stream.receive();
  say("heard " + text);
  if (text == "fail") co_await raise(error(errc::os_error, 28, "disk"));
  if (text == "end") co_await stream.receive();
  if (text == "wait") co_await sleep(1h);
  co_await stream.send("fine");
}

task<> talk(tcp_listener& listener, std::string text) {
  tcp_stream client = co_await connect_tcp("127.0.0.1", listener.local_port());
  co_await client.send(text);
  if (text == "end") co_await client.send_eof();
  tell(text, co_await as_result(client.receive()));
}

task<> serves() {
  auto listener = co_await create_tcp_listener({.local_host = "127.0.0.1"});
  task_group group;
  group.start_soon(
      listener.serve(handle, [](const error& e) { say("on_error", e); }, {.max_connections = 1}));
  co_await talk(listener, "hello");
  co_await talk(listener, "fail");
  co_await talk(listener, "end");
  co_await talk(listener, "hello again");
  {
    tcp_stream client = co_await connect_tcp("127.0.0.1", listener.local_port());
    co_await client.send("wait");
    co_await sleep(20ms);
    group.cancel();
    tell("cancelled", co_await as_result(client.receive()));
  }
  tell("join", co_await as_result(group.join()));
  listener.close();
  tell("accept", co_await as_result(listener.accept()));
  tell("serve", co_await as_result(listener.serve(handle)));
}

}  // namespace

int main() { tell("serves", run(as_result(serves()))); }
