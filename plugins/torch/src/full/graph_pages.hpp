// Pages that graphs share: each graph keeps its own addresses, and those of one set lie over the same pages.
//
//   1. A program names a set for the captures that a thread begins (join). A graph captured meanwhile, whose pool is
//   its
//      own, takes its segments from the set's pages, from the first one on: a set costs what its largest graph needs.
//   2. The pages of a set are made for each device that has a graph in it, by the core, which keeps them for ever;
//   empty
//      ones cost nothing.
//   3. What one graph leaves in its memory, the next one overwrites. The program has said that they do not run at once,
//      and cenote.graphs_share_pages looks at launches from Python.
//
// Threads: any; join() is for the calling thread, which is the one that PyTorch begins a capture on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "core.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

class graph_pages {
 public:
  using set_number = std::int64_t;  ///< 0: none

  /// The set that captures of this thread join from now on; returns the one of before.
  static set_number join(set_number set);
  static set_number joined();

  /// The pages of that set on a device. Throws c10::Error where the device has no virtual memory.
  cenote_page_set* of(set_number set, c10::DeviceIndex device);

  /// The bytes that the set has on all devices.
  std::size_t bytes(set_number set);

  /// The bytes that all sets have on a device, after what is not used any more has gone back.
  std::size_t trim(c10::DeviceIndex device, bool waits);

 private:
  template <class Filter>
  std::size_t trim_those(Filter&& is_wanted, bool waits);

  std::mutex mutex_;  // guards `sets_`
  std::map<std::pair<set_number, c10::DeviceIndex>, cenote_page_set*> sets_;
};

}  // namespace cenote::torch
