#include "cenote/ground/asymmetric_fence.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace cenote::inline v1 {
namespace {

bool membarrier(int command) noexcept { return syscall(SYS_membarrier, command, 0, 0) == 0; }

}  // namespace

bool has_asymmetric_fence() noexcept {
  static const bool is_registered = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  return is_registered;
}

/// Where the system takes the fence back that it offered (a filter on system calls that was set up later), time must
/// do: what a processor has written is seen by the others within a microsecond.
void pass_fence_of_all() noexcept {
  if (!membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace cenote::inline v1
