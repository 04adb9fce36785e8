#include "cenote/ground/biased_lock.hpp"

#include <thread>

#include "cenote/ground/process.hpp"

namespace cenote {

/// The system may be short of memory for it, which passes; in a forked child there is no other thread.
void biased_lock::pass_fence() noexcept {
  if (!has_asymmetric_fence()) return;  // the exchanges are the fence
  while (!pass_fence_of_all() && !process_is_forked_child()) std::this_thread::yield();
}

void biased_lock::wait_until_left() const noexcept {
  while (is_held_.load() && !process_is_forked_child()) std::this_thread::yield();
}

}  // namespace cenote
