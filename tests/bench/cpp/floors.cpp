#include "floors.hpp"

#include <atomic>
#include <functional>

#include "device.hpp"
#include "stopwatch.hpp"

namespace bench {
namespace {

using piece = std::function<measured(std::size_t wanted, steady::duration budget)>;

/// `once` is a template argument, so that nothing of the loop is called through a pointer.
template <class Once>
measured timed(std::size_t wanted, steady::duration budget, Once once) {
  const auto run = [&](std::size_t, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) once();
  };
  warm_up(wanted, budget, run);
  return repeat(wanted, budget, run);
}

measured compare_and_swap(std::size_t wanted, steady::duration budget) {
  std::atomic<std::size_t> word{0};
  return timed(wanted, budget, [&] {
    std::size_t expected = word.load(std::memory_order_relaxed);
    word.compare_exchange_strong(expected, expected + 1);
  });
}

measured exchange(std::size_t wanted, steady::duration budget) {
  std::atomic<std::size_t> word{0};
  return timed(wanted, budget, [&] { word.exchange(1, std::memory_order_acquire); });
}

measured event_record(std::size_t wanted, steady::duration budget, CUstream stream) {
  const driver_table& calls = driver();
  const event once;
  return timed(wanted, budget, [&] { calls.cuEventRecord(once.handle(), stream); });
}

measured record_and_wait(std::size_t wanted, steady::duration budget) {
  const driver_table& calls = driver();
  const foreign_stream from, to;
  const event once;
  return timed(wanted, budget, [&] {
    calls.cuEventRecord(once.handle(), from.handle());
    calls.cuStreamWaitEvent(to.handle(), once.handle(), 0);
  });
}

measured stream_id(std::size_t wanted, steady::duration budget) {
  const driver_table& calls = driver();
  const foreign_stream stream;
  unsigned long long id = 0;
  return timed(wanted, budget, [&] { calls.cuStreamGetId(stream.handle(), &id); });
}

measured is_capturing_and_stream_id(std::size_t wanted, steady::duration budget) {
  const driver_table& calls = driver();
  const foreign_stream stream;
  unsigned long long id = 0;
  CUstreamCaptureStatus status{};
  return timed(wanted, budget, [&] {
    calls.cuStreamIsCapturing(stream.handle(), &status);
    calls.cuStreamGetId(stream.handle(), &id);
  });
}

const std::map<std::string, piece>& pieces() {
  static const std::map<std::string, piece> all = {
      {"cas", compare_and_swap},
      {"xchg", exchange},
      {"event-record",
       [](std::size_t wanted, steady::duration budget) {
         const foreign_stream stream;
         return event_record(wanted, budget, stream.handle());
       }},
      {"event-record-legacy",
       [](std::size_t wanted, steady::duration budget) { return event_record(wanted, budget, nullptr); }},
      {"record-and-wait", record_and_wait},
      {"stream-id", stream_id},
      {"capturing-and-id", is_capturing_and_stream_id},
  };
  return all;
}

outcome run_floor(const record& request) {
  const auto found = pieces().find(request.text("what"));
  if (found == pieces().end()) throw bad_request("there is no floor \"" + request.text("what") + "\"");
  const auto budget = std::chrono::milliseconds(request.number("budget_ms"));
  const measured result = found->second(request.number("count"), budget);
  finish_all_work();
  return {result.nanoseconds_each, result.done};
}

}  // namespace

void add_floors(worker& to) {
  to.add_peer("machine", "");
  to.add("floor", "machine", run_floor);
}

}  // namespace bench
