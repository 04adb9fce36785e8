// A pool that starts empty, of which blocks of 64 MiB are taken, and that gives everything back.
#pragma once

#include "single_thread_cases.hpp"

namespace bench {

/// Microseconds a GiB: of growing, of trimming when all is free, or of growing again after that.
template <class Peer>
outcome growth(const maker<Peer>& make, const record& request) {
  constexpr std::size_t bytes = 64 * mib;
  const std::string phase = request.text("phase");
  const std::size_t count = request.number("mib") * mib / bytes;
  const double gib = static_cast<double>(count * bytes) / static_cast<double>(1024 * mib);
  const auto peer = make({0});
  const typename Peer::own_stream stream;
  std::vector<void*> blocks(count);
  const auto timed = [&](auto&& what) {
    const auto begin = steady::now();
    what();
    return nanoseconds(steady::now() - begin) / 1e3 / gib;
  };
  const auto grow = [&] {
    for (void*& block : blocks) block = require(*peer, stream.handle(), bytes);
  };
  const auto free_all = [&] {
    for (void* block : blocks) peer->deallocate(stream.handle(), block, bytes);
    if constexpr (Peer::on_device) finish_all_work();
  };
  const double growing = timed(grow);
  free_all();
  bool trims = true;
  const double trimming = timed([&] { trims = peer->trim(); });
  if (!trims && phase != "grow") throw std::runtime_error("never gives memory back");
  const double growing_again = timed(grow);
  free_all();
  return {phase == "grow" ? growing : phase == "trim" ? trimming : growing_again, count};
}

}  // namespace bench
