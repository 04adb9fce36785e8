// Several pools that are paused, or resumed, as one: no other thread pauses, resumes or grows any of them meanwhile.
//
//     lock all ──▶ hide, hide, … ──▶ release, release, … ──▶ unlock      a failure of one before release() is undone by
//                                                                        resuming those that are hidden
//
// It has the growth locks of all. It takes them as std::lock does, and waits for one only while it has none: a thread
// that grows a pool may pause others meanwhile, as where memory runs out the program is asked for some.
//
// Threads: the one that made it.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cenote/ground/mutex.hpp"
#include "cenote/resources/pool_memory_resource.hpp"

namespace cenote::inline v1 {

class pools_held_still {
 public:
  /// All can be paused.
  explicit pools_held_still(std::vector<std::shared_ptr<pool_memory_resource>> all);

  /// Those that are paused, or are not.
  std::vector<std::shared_ptr<pool_memory_resource>> which(bool are_paused) const;

  /// The two halves of pausing one of them, as page_backing's: until release() its resume() brings all contents back.
  std::size_t hide(pool_memory_resource& one, const std::string& keep) const;
  std::size_t release(pool_memory_resource& one) const noexcept;

 private:
  std::size_t lock_all_from(std::size_t first);

  std::vector<std::shared_ptr<pool_memory_resource>> all_;
  std::vector<std::unique_lock<object_recursive_mutex>> locks_;  // end before the pools
};

}  // namespace cenote::inline v1
