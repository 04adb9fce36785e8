// Cases of many threads: each on its own stream, all on one, and one thread freeing what another allocates.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <exception>
#include <mutex>
#include <thread>

#include "single_thread_cases.hpp"

namespace bench {

/// Runs `body(index, all_start)` on `count` threads; throws what one of them threw first.
template <class Body>
void on_threads(std::size_t count, Body&& body) {
  std::barrier all_start(static_cast<std::ptrdiff_t>(count));
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::jthread> threads;
  for (std::size_t index = 0; index < count; ++index)
    threads.emplace_back([&, index] {
      try {
        body(index, all_start);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        all_start.arrive_and_drop();  // the others need not wait for it
      }
    });
  threads.clear();  // joins them
  if (failure) std::rethrow_exception(failure);
}

struct span {
  steady::time_point begin, end;
  measured result;
};

/// Nanoseconds that each thread sees, and the operations that all of them do in a second.
inline outcome together(const std::vector<span>& spans) {
  outcome sum;
  auto first = spans.front().begin, last = spans.front().end;
  for (const span& each : spans) {
    sum.value += each.result.nanoseconds_each / static_cast<double>(spans.size());
    sum.done += each.result.done;
    first = std::min(first, each.begin);
    last = std::max(last, each.end);
  }
  sum.figures["million a second"] = static_cast<double>(sum.done) * 1e3 / nanoseconds(last - first);
  return sum;
}

/// Each thread replaces its 32 blocks of 256 B · (1…64) in random order, on a stream of its own or all on one.
template <class Peer>
outcome many_threads(const maker<Peer>& make, const record& request) {
  constexpr std::size_t live = 32;
  const effort asked(request);
  const std::size_t count = request.number("threads");
  const bool share = request.text("streams") == "one";
  const auto peer = make({1024 * mib});
  std::vector<typename Peer::own_stream> streams(share ? 1 : count);
  std::vector<span> spans(count);
  counts before;
  on_threads(count, [&](std::size_t index, auto& all_start) {
    if constexpr (Peer::on_device) driver();  // the context is current on this thread
    random_numbers random(seed + index);
    std::vector<std::size_t> sizes(live);
    for (auto& size : sizes) size = 256 * (1 + random.below(64));
    std::vector<replacement> list(4096);
    for (auto& each : list) each = {static_cast<std::uint32_t>(random.below(live)), 256 * (1 + random.below(64))};
    live_blocks<Peer> blocks(*peer, streams[share ? 0 : index].handle());
    patience left = asked.preparation;
    blocks.fill(sizes, left);
    auto run = [&, at = std::size_t{0}](std::size_t, std::size_t parts) mutable {
      for (std::size_t i = 0; i < parts; ++i) blocks.replace(list[at++ % list.size()]);
    };
    warm_up(asked.count, asked.budget, run);
    all_start.arrive_and_wait();
    if (index == 0) before = counts_of(*peer);
    span& mine = spans[index];
    mine.begin = steady::now();
    mine.result = repeat(asked.count, asked.budget, run);
    mine.end = steady::now();
    all_start.arrive_and_wait();
  });
  outcome result = together(spans);
  result.figures.merge(counts_each(*peer, before, result.done));
  if constexpr (Peer::on_device) finish_all_work();
  return result;
}

/// Each thread allocates and frees one size on the legacy default stream, with nothing else of its own in use.
template <class Peer>
outcome pairs_of_threads(const maker<Peer>& make, const record& request) {
  const effort asked(request);
  const std::size_t count = request.number("threads"), bytes = request.number("bytes");
  const auto peer = make({64 * mib});
  std::vector<span> spans(count);
  on_threads(count, [&](std::size_t index, auto& all_start) {
    if constexpr (Peer::on_device) driver();
    const auto run = [&](std::size_t, std::size_t parts) {
      for (std::size_t i = 0; i < parts; ++i) {
        void* pointer = require(*peer, nullptr, bytes);
        keep(pointer);
        peer->deallocate(nullptr, pointer, bytes);
      }
    };
    warm_up(asked.count, asked.budget, run);
    all_start.arrive_and_wait();
    span& mine = spans[index];
    mine.begin = steady::now();
    mine.result = repeat(asked.count, asked.budget, run);
    mine.end = steady::now();
  });
  if constexpr (Peer::on_device) finish_all_work();
  return together(spans);
}

/// A queue of one writer and one reader.
class hand_over {
 public:
  void push(void* pointer) {
    const std::size_t at = written_.load(std::memory_order_relaxed);
    while (at - read_.load(std::memory_order_acquire) == slots_.size()) std::this_thread::yield();
    slots_[at % slots_.size()] = pointer;
    written_.store(at + 1, std::memory_order_release);
  }

  void* pop() {
    const std::size_t at = read_.load(std::memory_order_relaxed);
    while (at == written_.load(std::memory_order_acquire)) std::this_thread::yield();
    void* pointer = slots_[at % slots_.size()];
    read_.store(at + 1, std::memory_order_release);
    return pointer;
  }

 private:
  std::array<void*, 1024> slots_{};
  alignas(64) std::atomic<std::size_t> written_{0};
  alignas(64) std::atomic<std::size_t> read_{0};
};

/// Of each two threads one allocates 4 KiB and the other frees them: on the stream of the pair, or on its own.
template <class Peer>
outcome producer_consumer(const maker<Peer>& make, const record& request) {
  constexpr std::size_t bytes = 4096;
  const effort asked(request);
  const std::size_t pairs = std::max<std::size_t>(request.number("threads") / 2, 1);
  const bool share = request.text("streams") == "one";
  const auto peer = make({1024 * mib});
  std::vector<typename Peer::own_stream> streams(2 * pairs);
  std::vector<hand_over> queues(pairs);
  std::vector<span> spans(pairs);
  on_threads(2 * pairs, [&](std::size_t index, auto& all_start) {
    if constexpr (Peer::on_device) driver();
    const std::size_t pair = index / 2;
    hand_over& queue = queues[pair];
    all_start.arrive_and_wait();
    if (index % 2 == 0) {
      const CUstream stream = streams[2 * pair].handle();
      span& mine = spans[pair];
      mine.begin = steady::now();
      try {
        mine.result = repeat(asked.count, asked.budget, [&](std::size_t, std::size_t count) {
          for (std::size_t i = 0; i < count; ++i) queue.push(require(*peer, stream, bytes));
        });
      } catch (...) {
        queue.push(nullptr);  // the other one ends
        throw;
      }
      mine.end = steady::now();
      queue.push(nullptr);
    } else {
      const CUstream stream = streams[share ? 2 * pair : index].handle();
      while (void* pointer = queue.pop()) peer->deallocate(stream, pointer, bytes);
    }
  });
  if constexpr (Peer::on_device) finish_all_work();
  return together(spans);
}

}  // namespace bench
