// Cases of several streams and one thread: memory that goes from one stream to another, idle or with kernels running.
#pragma once

#include <optional>

#include "single_thread_cases.hpp"

namespace bench {

/// All memory is in use; a block is freed on one stream and the other one needs it.
template <class Peer>
outcome hand_off(const maker<Peer>& make, const record& request) {
  constexpr std::size_t count = 64, bytes = mib;
  const effort asked(request);
  const auto peer = make({count * bytes, count * bytes});
  const typename Peer::own_stream first, second;
  const std::array<CUstream, 2> streams{first.handle(), second.handle()};
  std::vector<void*> blocks(count);
  for (void*& block : blocks) block = require(*peer, streams[0], bytes);
  std::vector<unsigned> on(count, 0);
  std::size_t at = 0;
  outcome result = measure(*peer, asked, [&](std::size_t, std::size_t parts) {
    for (std::size_t i = 0; i < parts; ++i, ++at) {
      const std::size_t slot = at % count;
      peer->deallocate(streams[on[slot]], blocks[slot], bytes);
      on[slot] = 1 - on[slot];
      blocks[slot] = require(*peer, streams[on[slot]], bytes);
    }
  });
  for (std::size_t slot = 0; slot < count; ++slot) peer->deallocate(streams[on[slot]], blocks[slot], bytes);
  return result;
}

/// Every stream allocates, runs a kernel on the memory and frees it, again and again. Where each stream has a block of
/// its own the kernels of different streams overlap; what a peer makes one stream wait for another comes on top.
/// The value is the time until all is done over that time without any allocator.
template <class Peer>
outcome busy_streams(const maker<Peer>& make, const record& request) {
  constexpr std::size_t bytes = 8 * mib;
  const std::size_t count = request.number("streams"), rounds = request.number("kernels");
  const std::size_t length = request.number("kernel_ns");
  const std::size_t blocks = request.text("memory") == "tight" ? count : 2 * count;
  const auto peer = make({blocks * bytes, blocks * bytes});
  const spin_kernel kernel;
  std::vector<foreign_stream> streams(count);
  const auto run = [&](auto&& take, auto&& give) {
    finish_all_work();
    const auto begin = steady::now();
    for (std::size_t round = 0; round < rounds; ++round)
      for (const foreign_stream& stream : streams) {
        void* pointer = take(stream.handle());
        kernel.launch(stream.handle(), pointer, length);
        give(stream.handle(), pointer);
      }
    finish_all_work();
    return nanoseconds(steady::now() - begin);
  };
  const auto allocate = [&](CUstream stream) { return require(*peer, stream, bytes); };
  const auto free = [&](CUstream stream, void* pointer) { peer->deallocate(stream, pointer, bytes); };
  void* fixed = allocate(streams.front().handle());
  const auto ideal = [&] { return run([&](CUstream) { return fixed; }, [](CUstream, void*) {}); };
  ideal();
  const double without = ideal();
  free(streams.front().handle(), fixed);
  run(allocate, free);
  const counts before = counts_of(*peer);
  const double with = run(allocate, free);
  outcome result{with / without, rounds * count, counts_each(*peer, before, rounds * count)};
  result.figures["microseconds lost a kernel"] = (with - without) / 1e3 / static_cast<double>(rounds * count);
  return result;
}

}  // namespace bench
