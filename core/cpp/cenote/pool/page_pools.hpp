// The pools over pages of this process: one that finds no memory on its device has others give back what lies idle.
//
//     pool A: the device is full ──▶ pool B: 6 GiB free ──▶ gives back as many pages as A needs ──▶ A makes new ones
//
// How it works
//   1. Each pool over pages has a place in the list for as long as it can be asked.
//   2. A pool is asked only for pages that are wholly free and whose work is done. It keeps the rest.
//   3. One that grows or gives back at that moment is passed over: no thread waits for a pool while it grows another.
//
// Threads: any. The list's lock is held while a pool gives back; an allocation takes it only where the driver had no
// memory. Cost: nothing before that, then O(pools), and what giving back costs.
#pragma once

#include <cstddef>

#include "cenote/pool/backing.hpp"

namespace cenote::inline v1::pool {

class page_pools {
 public:
  /// A pool's place in the list. The pool is not asked any more once it is destroyed.
  class place {
   public:
    place(shared_heap& heap, backing& memory);
    ~place();  // waits for a thread that asks the pool
    place(const place&) = delete;
    place& operator=(const place&) = delete;

   private:
    const backing* const memory_;
  };

  /// Has the other pools of the taker's device give back at least `bytes`, or what they can; with `may_wait` after a
  /// wait on the host for the work that may use it. Returns how much that was.
  static std::size_t give_back(const backing& taker, std::size_t bytes, bool may_wait);
};

}  // namespace cenote::inline v1::pool
