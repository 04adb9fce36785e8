// Cases of one thread on one stream: pairs, random replacement, holes, and RMM's random allocations.
#pragma once

#include <utility>

#include "live_blocks.hpp"
#include "resident.hpp"
#include "worker.hpp"

namespace bench {

constexpr std::size_t kib = std::size_t{1} << 10;
constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::uint64_t seed = 20261123;

/// What every case is told: how much to do, and for how long at most.
struct effort {
  explicit effort(const record& request)
      : count(request.number("count")),
        budget(std::chrono::milliseconds(request.number("budget_ms"))),
        preparation(std::chrono::milliseconds(request.number("preparation_ms", 10000))) {}

  std::size_t count;
  steady::duration budget;
  patience preparation;
};

/// Warms up, measures, and counts what the peer did per operation.
template <class Peer, class Run>
outcome measure(const Peer& peer, const effort& asked, Run&& run) {
  warm_up(asked.count, asked.budget, run);
  const counts before = counts_of(peer);
  const measured result = repeat(asked.count, asked.budget, run);
  const counts each = counts_each(peer, before, result.done);
  if constexpr (Peer::on_device) finish_all_work();
  return {result.nanoseconds_each, result.done, each};
}

/// Allocate and free one size, with nothing else in use.
template <class Peer>
outcome same_size_pair(const maker<Peer>& make, const record& request) {
  const effort asked(request);
  const std::size_t bytes = request.number("bytes");
  const auto peer = make({std::max(64 * mib, 4 * bytes)});
  const chosen_stream<Peer> stream(request.text("stream"));
  return measure(*peer, asked, [&](std::size_t, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      void* pointer = require(*peer, stream.handle(), bytes);
      keep(pointer);
      peer->deallocate(stream.handle(), pointer, bytes);
    }
  });
}

template <class Peer>
outcome replace_randomly(Peer& peer, live_blocks<Peer>& blocks, const replacements& list, const effort& asked) {
  std::size_t at = 0;
  return measure(peer, asked, [&](std::size_t, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      blocks.replace(list.then[at]);
      if (++at == list.then.size()) at = 0;
    }
  });
}

/// `live` blocks of log-uniform sizes; one after the other is replaced by one of another size.
template <class Peer>
outcome random_replacement(const maker<Peer>& make, const record& request) {
  effort asked(request);
  const std::size_t live = request.number("live"), capacity = request.number("capacity_mib") * mib;
  const replacements list = log_uniform(live, 256, request.number("largest_kib") * kib, capacity, seed);
  std::size_t bytes = 0;
  for (const std::size_t each : list.first) bytes += (each + 255) / 256 * 256;
  const auto peer = make({std::max(64 * mib, (bytes + bytes / 2) / mib * mib)});
  const typename Peer::own_stream stream;
  live_blocks<Peer> blocks(*peer, stream.handle());
  blocks.prepare(live);
  const std::size_t before = resident_bytes();
  blocks.fill(list.first, asked.preparation);
  const std::size_t after = resident_bytes();
  outcome result = replace_randomly(*peer, blocks, list, asked);
  if (Peer::on_device && live >= 10000)
    result.figures["host bytes a block"] =
        after < before ? 0 : static_cast<double>(after - before) / static_cast<double>(live);
  return result;
}

/// `blocks` blocks of which every second one is freed, then random replacement among the rest.
template <class Peer>
outcome holes(const maker<Peer>& make, const record& request) {
  effort asked(request);
  const std::size_t count = request.number("blocks") / 2 * 2;
  const replacements sizes = lumpy(count, seed);
  const replacements list = lumpy(count / 2, seed + 1);
  const auto peer = make({8192 * mib});
  const typename Peer::own_stream stream;
  live_blocks<Peer> blocks(*peer, stream.handle());
  blocks.prepare(count);
  blocks.fill(sizes.first, asked.preparation);
  blocks.make_holes(asked.preparation);
  return replace_randomly(*peer, blocks, list, asked);
}

/// RMM's own benchmark with its parameters, in a pool of half the device's free memory; nanoseconds a step.
template <class Peer>
outcome rmm_random(const maker<Peer>& make, const record& request) {
  effort asked(request);
  const std::vector<step> steps = random_allocations(request.number("blocks"), request.number("largest_mib"), seed);
  const auto peer = make({free_bytes() / 2 / (256 * mib) * (256 * mib)});
  const typename Peer::own_stream stream;
  std::vector<std::pair<void*, std::size_t>> live;
  live.reserve(steps.size());
  const counts before = counts_of(*peer);
  const measured result = repeat(steps.size(), asked.budget, [&](std::size_t first, std::size_t count) {
    for (std::size_t i = first; i < first + count; ++i) {
      if (steps[i].allocates) {
        live.emplace_back(require(*peer, stream.handle(), steps[i].bytes), steps[i].bytes);
      } else {
        auto& freed = live[steps[i].which];
        peer->deallocate(stream.handle(), freed.first, freed.second);
        freed = live.back();
        live.pop_back();
      }
    }
  });
  const counts each = counts_each(*peer, before, result.done);
  if constexpr (!Peer::forgets)
    for (const auto& [pointer, bytes] : live) peer->deallocate(stream.handle(), pointer, bytes);
  if constexpr (Peer::on_device) finish_all_work();
  return {result.nanoseconds_each, result.done, each};
}

}  // namespace bench
