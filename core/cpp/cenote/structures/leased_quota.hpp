// A quota of which many threads take and give without meeting: each has a lease of it, and uses it up by itself.
//
//     limit 1000 = rest 300  +  granted 400       +  granted 300       + …      a cell for each thread
//                               taken   900          taken   100
//                               given   800          given   150
//                               (300 may be taken)   (350 may be taken)
//
// How it works
//   1. A thread takes and gives on its own cell, as long as what it has taken and not given stays within what it was
//      granted. It may give what another thread took: then it has taken less than nothing, and may take more.
//   2. Where that does not suffice, it is granted more under the lock: of the rest; then of what other cells could
//      still take, from whom their grant is called back, half of what the thread does not need at once left to them.
//   3. Where all that does not suffice, a fixed limit refuses; a rising one is raised by what is missing. So a rising
//      limit that starts at 0 is the highest sum that was ever taken.
//   4. Under a fixed limit nobody may go beyond his grant: a thread that takes and one that calls its grant back both
//      write first, then pass a fence, and then look what the other one has written. The later one sees it, and gives
//      way. Calling back is rare, so its fence pays for both (ground/asymmetric_fence.hpp). Where the system does not
//      offer that, both are exchanges on the cell's gate.
//   5. Under a rising limit there is no fence. Who takes while he is called back may go beyond his grant; the next look
//      at the cell sets that right. Until then the limit is short of what was taken, by no more than that one amount.
//      And what is given while a thread searches may come too late for it. So the limit is the highest sum, but for
//      calls that overlap in time: each may count for earlier or later than it was.
//
// Cells go by the thread's slot (ground/thread_slot.hpp); a thread holds its slot's cells in all quotas alone, while it
// lives, and leaves them to the slot's next thread as they are. A thread that has none, because there are more than 64
// or because it ends, takes and gives on the common cell, under the lock.
//
// Invariants
//   I1  what is granted to all cells, and the rest, make the limit
//   I2  the rest is not negative
//   I3  no cell has taken and not given more than it was granted, but as 5. says
//
// Threads: any. `lock_` guards the limit, the rest, the common cell, and who is granted what; only its thread writes
// what a cell has taken and given. A request that is refused would not have fitted with nobody else taking or giving.
// Cost: a pair of take() and give() 0.9 ns, of try_take() and give() 1.2 ns (5 ns more with the gate); no locked
// instruction, and nothing is touched that another thread writes. Where the grant does not suffice, a spin lock and
// O(threads), 13 ns for a thread that is alone; where a fixed limit calls back, a system call of 0.4 µs besides. The
// first quota with a fixed limit registers the process for it: up to 20 ms if it has several threads already. 704
// bytes, and 64 for each thread. Source: the figures are medians on an AMD EPYC (Zen 5) of 2 cores, Linux, GCC 12,
// where an uncontended exchange or compare-and-swap is 4.8 ns. The batches of Linux' percpu_counter
// (lib/percpu_counter.c), which are exact only within a slack. Stealing halves: Hendler and Shavit, "Non-Blocking
// Steal-Half Work Queues", 2002. Dekker's handshake.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cenote/ground/asymmetric_fence.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/spin_lock.hpp"

namespace cenote::inline v1 {

class leased_quota {
 public:
  struct figures {
    std::int64_t taken;  ///< and not given
    std::int64_t limit;
    std::int64_t taken_in_all;
  };

  /// No limit and no amount is larger: what is taken and one amount more can be said.
  static constexpr std::int64_t largest = std::int64_t{1} << 61;

  /// Of one thread, where it gives what others have taken. All threads together stay above -largest.
  static constexpr std::int64_t least_in_use = -(largest / 65);

  enum class limit { fixed, rising };

  CENOTE_EXPORT leased_quota(limit kind, std::int64_t least) noexcept;
  CENOTE_EXPORT ~leased_quota();
  leased_quota(const leased_quota&) = delete;
  leased_quota& operator=(const leased_quota&) = delete;

  /// Takes `amount` if all threads together stay within the limit, which is fixed.
  bool try_take(std::int64_t amount) noexcept {
    if (cell* const own = own_cell()) [[likely]] {
      const std::uint64_t before = own->taken.load(std::memory_order_relaxed);
      const std::uint64_t after = before + static_cast<std::uint64_t>(amount);
      if (own->may_have_taken(after)) [[likely]] {
        own->taken.store(after, std::memory_order_relaxed);
        pass_fence(*own);
        if (own->may_have_taken(after)) [[likely]]
          return true;
        own->taken.store(before, std::memory_order_relaxed);
      }
    }
    return try_take_slowly(amount);
  }

  /// Takes `amount`, and raises the limit, which is a rising one, if it has to.
  void take(std::int64_t amount) noexcept {
    if (cell* const own = own_cell()) [[likely]] {
      const std::uint64_t after = own->taken.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(amount);
      if (own->may_have_taken(after)) [[likely]]
        return own->taken.store(after, std::memory_order_relaxed);
    }
    take_slowly(amount);
  }

  /// Gives what this or another thread has taken. Whoever gives what nobody has taken, such as by frees of wrong sizes,
  /// leaves the figures wrong, but in bounds.
  void give(std::int64_t amount) noexcept {
    if (cell* const own = own_cell()) [[likely]]
      return own->give(amount);
    give_slowly(amount);
  }

  /// What is taken and not given. Exact when nobody takes or gives; otherwise at least what was all the time.
  std::int64_t taken() const noexcept;

  /// Of a rising limit: it is at least what is taken.
  figures look() noexcept;

  /// Throws std::logic_error naming the invariant that does not hold. Nobody may take or give meanwhile.
  void check() const;

 private:
  struct alignas(64) cell {               // a cache line
    std::atomic<std::uint64_t> taken{0};  // in all; it may wrap, and so may what was given
    std::atomic<std::uint64_t> given{0};
    std::atomic<std::int64_t> granted{0};
    std::atomic<bool> gate{false};

    bool may_have_taken(std::uint64_t sum) const noexcept {
      const auto in_use = static_cast<std::int64_t>(sum - given.load(std::memory_order_relaxed));
      return in_use <= granted.load(std::memory_order_relaxed);
    }
    void take(std::int64_t amount) noexcept {
      taken.store(taken.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(amount),
                  std::memory_order_relaxed);
    }
    /// No more than brings what is in use down to the least: who gives more gives what nobody has taken.
    void give(std::int64_t amount) noexcept {
      const std::uint64_t least = taken.load(std::memory_order_relaxed) - static_cast<std::uint64_t>(least_in_use);
      const std::uint64_t before = given.load(std::memory_order_relaxed);
      std::uint64_t after = before + static_cast<std::uint64_t>(std::min(amount, largest));
      if (static_cast<std::int64_t>(least - after) < 0) [[unlikely]]
        after = least;
      given.store(after, std::memory_order_release);
    }
    /// The caller holds the quota's lock.
    void add_to_grant(std::int64_t amount) noexcept {
      granted.store(granted.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
    std::int64_t in_use() const noexcept;
    /// What it may still take.
    std::int64_t left() const noexcept { return granted.load(std::memory_order_relaxed) - in_use(); }
  };

  static constexpr std::size_t seats = 64;

  // The seat of the thread, from 1 on; 0 if it has not asked for one, and `no_seat`. Read at every call: initial-exec
  // spares a call into the loader.
  [[gnu::tls_model("initial-exec")]] static constinit thread_local std::size_t seat_;
  static constexpr std::size_t no_seat = seats + 1;

  static std::size_t take_seat() noexcept;
  static bool is_seat(std::size_t number) noexcept { return number - 1 < seats; }
  cell* own_cell() const noexcept {
    const std::size_t seat = seat_;
    return is_seat(seat) ? cells_[seat].load(std::memory_order_acquire) : nullptr;
  }
  cell& own_or_common_cell() noexcept;

  /// What was written before is seen by who calls back later; what a caller back wrote before is seen from now on.
  void pass_fence(cell& own) const noexcept {
    if (has_free_fence_) [[likely]] {
      pass_free_fence();  // the caller back makes it one for the processor
    } else {
      own.gate.exchange(true, std::memory_order_acq_rel);
    }
  }
  void pass_fence_of_all() noexcept;

  bool try_take_slowly(std::int64_t amount) noexcept;
  void take_slowly(std::int64_t amount) noexcept;
  void give_slowly(std::int64_t amount) noexcept;

  std::int64_t grant_locked(cell& to, std::int64_t amount) noexcept;
  std::int64_t left_to_others_locked(const cell& than) const noexcept;
  std::int64_t call_back_locked(const cell& from_others_than, std::int64_t wanted) noexcept;
  void raise_for_locked(cell& to, std::int64_t amount) noexcept;

  template <class Use>
  void for_each_cell(Use&& use) const noexcept {
    const std::size_t end = end_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < end; ++i) {
      if (cell* const one = cells_[i].load(std::memory_order_acquire)) use(*one);
    }
  }

  const limit kind_;
  const bool has_free_fence_;
  std::array<std::atomic<cell*>, 1 + seats> cells_{};  // the common one, and those of the seats
  std::atomic<std::size_t> end_{1};                    // behind the last cell there is
  cell common_;                                        // on a line of its own: from here on all is written often
  mutable spin_lock lock_;
  std::int64_t limit_;
  std::int64_t rest_;
  std::size_t next_called_ = 0;  // where the last search for what may be called back ended
};

}  // namespace cenote::inline v1
