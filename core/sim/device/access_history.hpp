// Which work touches a piece of physical memory, through whichever of its addresses, and whether it may.
//
// 1. Of each range of the piece, the last write and the reads since then are known. An access is checked when it is
//    queued: a write against all of them, a read against the write. What it finds must be done, or come before it.
//
//        offsets of the piece:  [ write W            ][ nobody ][ reads R, S, since write V ]
//        a write of             (        the middle        )       splits the ranges, and takes their place
//
// 2. A piece of work that is done needs no order: the program has waited for it, or it would not have run (work.hpp).
// 3. Of each mapping, the last access of each queue is known: a mapping must not end before they are done.
//
// Threads: guarded by driver_mutex(). Cost: an access O(log ranges + ranges that it touches), and what comes_before
// costs; ranges whose work is done are dropped when their number has doubled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "sim/device/work.hpp"

namespace cenote::sim {

struct memory_access {
  queue_point done;
  const char* call;        ///< that queued the work
  std::uintptr_t address;  ///< that it was given
  bool writes;
};

class access_history {
 public:
  /// The work of `access` touches these bytes of the piece, through the mapping at `mapping`. The answer is work that
  /// it should have been ordered after and is not.
  std::optional<memory_access> note(std::size_t offset, std::size_t bytes, std::uintptr_t mapping,
                                    const memory_access& access);

  /// The mapping there ends. The answer is work that goes through it and is not done.
  std::optional<memory_access> end_mapping(std::uintptr_t mapping);

 private:
  struct touched_range {
    std::size_t end;
    std::optional<memory_access> write;
    std::vector<memory_access> reads;  ///< since the write, one of each queue

    void forget_what_is_done();
    bool is_done() const;
    std::optional<memory_access> unordered_with(const memory_access& access) const;
    void add_read(const memory_access& access);
  };
  using range_map = std::map<std::size_t, touched_range>;

  void split_at(std::size_t offset);
  void read(std::size_t begin, std::size_t end, const memory_access& access);
  void write(std::size_t begin, std::size_t end, const memory_access& access);
  void drop_what_is_done();

  static constexpr std::size_t least_before_sweep = 64;

  range_map ranges_;  ///< by offset
  std::size_t sweep_at_ = least_before_sweep;
  std::map<std::uintptr_t, std::map<std::uint64_t, memory_access>> by_mapping_;  ///< then by queue
};

}  // namespace cenote::sim
