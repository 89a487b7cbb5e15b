// Bytes that operations move by themselves (copy, relay, send_queue): errors of either stream, streams that
// are busy or closed meanwhile, and cancellations.
#include "trace.hpp"

#include <memory>

using namespace outcome;

namespace {

task<> passes(byte_stream& from, byte_stream& to) {
  noisy local("passes");
  say("copied " + std::to_string(co_await copy(from, to)));
}

task<> copies() {
  noisy local("copies");
  auto in = create_memory_stream_pair();
  auto out = create_memory_stream_pair(4);
  co_await in.first.send("abc");
  say((co_await move_on_after(1ms, passes(in.second, out.first))) ? "done" : "moved on");
  say("there " + co_await out.second.receive());
  auto reading = in.second.receive();
  reading.start([](result<std::string>) { say("not here"); });
  tell("busy", co_await as_result(copy(in.second, out.first)));
  reading = {};
  co_await in.first.send("defghi");
  auto slow = passes(in.second, out.first);
  slow.start([](result<> r) { tell("to a closed one", r); });
  co_await sleep(1ms);
  out.second.close();
  co_await sleep(1ms);
  co_await in.first.send_eof();
  auto last = create_memory_stream_pair();
  tell("the rest", co_await as_result(passes(in.second, last.first)));
}

task<> closed_ones() {
  auto in = create_memory_stream_pair();
  auto out = create_memory_stream_pair();
  out.first.close();
  tell("from nothing", co_await as_result(copy(out.first, in.first)));
  tell("relay", co_await as_result(relay(in.first, out.first)));
  co_await passes(out.first, in.first);
  say("not here");
}

task<> talks(byte_stream& a, byte_stream& b, relay_options options = {}) {
  noisy local("talks");
  const auto [up, down] = co_await relay(a, b, options);
  say("up " + std::to_string(up) + ", down " + std::to_string(down));
}

task<> relays() {
  noisy local("relays");
  auto a = create_memory_stream_pair();
  auto b = create_memory_stream_pair();
  co_await a.first.send("question");
  co_await a.first.send_eof();
  co_await b.first.send("answer");
  co_await b.first.send_eof();
  tell("both ends", co_await as_result(talks(a.second, b.second)));
  tell("a second time", co_await as_result(talks(a.second, b.second)));
  a = create_memory_stream_pair();
  b = create_memory_stream_pair();
  tell("idle", co_await as_result(talks(a.second, b.second, {.idle = 5ms})));
  task_group group;
  group.start_soon(talks(a.second, b.second));
  co_await sleep(1ms);
  tell("busy", co_await as_result(a.second.receive()));
  b.second.close();
  tell("closed in it", co_await as_result(group.join()));
  co_await a.first.send("kept");
  say("still usable: " + co_await a.second.receive());
  a.first.close();
  tell("ends by itself", co_await as_result(fail_after(1s, talks(a.second, b.first))));
}

task<> writes(send_queue& queue, std::string text) {
  noisy local("writes " + text);
  co_await queue.send(text);
  say("queued " + text);
}

task<> queues() {
  noisy local("queues");
  auto [near, far] = create_memory_stream_pair(4);
  send_queue queue(near, 6);
  say(queue.try_send("one") ? "taken" : "no room");
  say(queue.try_send("long") ? "taken" : "no room");
  tell("nobody sends", co_await as_result(fail_after(1ms, queue.flush())));
  tell("waits", co_await as_result(fail_after(1ms, writes(queue, "four"))));
  say("size " + std::to_string(queue.size()));
  task_group group;
  group.start_soon(queue.run());
  co_await sleep(1ms);
  tell("twice", co_await as_result(queue.run()));
  group.start_soon(writes(queue, "fives"));
  say("heard " + co_await far.receive());
  tell("other writer", co_await as_result(near.send("x")));
  co_await sleep(1ms);
  say("heard " + co_await far.receive());
  co_await queue.flush();
  group.cancel();
  say(queue.try_send("kept") ? "taken" : "no room");
  auto flushing = queue.flush();
  flushing.start([](result<> r) { tell("flush", r); });
  tell("run", co_await as_result(fail_after(1ms, queue.run())));
  say("heard " + co_await far.receive());
  far.close();
  tell("nobody hears", co_await as_result(when_all(queue.run(), writes(queue, "lost"))));
  tell("flush then", co_await as_result(queue.flush()));
  tell("run then", co_await as_result(queue.run()));
  say(queue.try_send("more") ? "taken" : "no room");
  co_await queue.send("more");
  say("not here");
}

task<> outlives() {
  auto [near, far] = create_memory_stream_pair(1);
  auto queue = std::make_unique<send_queue>(near, 2);
  queue->try_send("ab");
  auto running = queue->run();
  auto flushing = queue->flush();
  auto sending = queue->send("cd");
  running.start([](result<> r) { tell("run", r); });
  flushing.start([](result<> r) { tell("flush", r); });
  sending.start([](result<> r) { tell("send", r); });
  co_await sleep(1ms);
  queue.reset();
  say("gone");
  co_await sleep(1ms);
  tell("run again", co_await as_result(running));
  tell("send again", co_await as_result(sending));
  co_await flushing;
  say("not here");
}

}  // namespace

int main() {
  tell("copies", run(as_result(copies())));
  tell("closed ones", run(as_result(closed_ones())));
  tell("relays", run(as_result(relays())));
  tell("queues", run(as_result(queues())));
  tell("outlives", run(as_result(outlives())));
}
