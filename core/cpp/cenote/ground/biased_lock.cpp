#include "cenote/ground/biased_lock.hpp"

#include <thread>

#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

void biased_lock::pass_fence() noexcept {
  if (has_asymmetric_fence()) pass_fence_of_all();  // elsewhere the exchanges are the fence
}

void biased_lock::wait_until_left() const noexcept {
  while (is_held_.load() && !process_is_forked_child()) std::this_thread::yield();
}

}  // namespace cenote::inline v1
