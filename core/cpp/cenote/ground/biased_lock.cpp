#include "cenote/ground/biased_lock.hpp"

#include <chrono>
#include <thread>

#include "cenote/ground/process.hpp"

namespace cenote {

/// Where the system takes the fence back that it offered (a filter on system calls that was set up later), time must
/// do: what a processor has written is seen by the others within a microsecond.
void biased_lock::pass_fence() noexcept {
  if (!has_asymmetric_fence()) return;  // the exchanges are the fence
  if (!pass_fence_of_all()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void biased_lock::wait_until_left() const noexcept {
  while (is_held_.load() && !process_is_forked_child()) std::this_thread::yield();
}

}  // namespace cenote
