// What an adaptor costs: a pair through it and one of the pool below, in turn.
#pragma once

#include <algorithm>
#include <vector>

#include "thread_cases.hpp"

namespace bench {

/// Nanoseconds of one pair, over `count` of them, on the legacy default stream.
template <class Peer>
double time_pairs(Peer& peer, std::size_t bytes, std::size_t count) {
  const auto begin = steady::now();
  for (std::size_t i = 0; i < count; ++i) {
    void* pointer = require(peer, nullptr, bytes);
    keep(pointer);
    peer.deallocate(nullptr, pointer, bytes);
  }
  return nanoseconds(steady::now() - begin) / static_cast<double>(count);
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// One thread: a tenth of a millisecond with the adaptor, one without, and so on, so that a processor which changes its
/// speed changes it for both. The figure is the median of the differences.
template <class Peer>
outcome adaptor_over_pool(const maker<Peer>& make, const maker<Peer>& make_pool, const record& request) {
  constexpr std::size_t slice = 4096;
  const effort asked(request);
  const std::size_t bytes = request.number("bytes");
  const auto with = make({64 * mib}), without = make_pool({64 * mib});
  std::vector<double> pairs, differences;
  const auto run = [&](std::size_t, std::size_t slices) {
    for (std::size_t i = 0; i < slices; ++i) {
      pairs.push_back(time_pairs(*with, bytes, slice));
      differences.push_back(pairs.back() - time_pairs(*without, bytes, slice));
    }
  };
  const std::size_t slices = std::max<std::size_t>(asked.count / slice, 1);
  warm_up(slices, asked.budget, run);
  pairs.clear();
  differences.clear();
  const measured result = repeat(slices, asked.budget, run);
  if constexpr (Peer::on_device) finish_all_work();
  return {median(pairs), result.done * slice, {{"more than the pool, ns", median(differences)}}};
}

/// Several threads: each by itself, the pool in another round.
template <class Peer>
outcome adaptor_pairs(const maker<Peer>& make, const maker<Peer>& make_pool, const record& request) {
  return request.number("threads") == 1 ? adaptor_over_pool<Peer>(make, make_pool, request)
                                        : pairs_of_threads<Peer>(make, request);
}

}  // namespace bench
