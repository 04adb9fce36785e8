#include "cenote/ground/thread_number.hpp"

#include <atomic>

namespace cenote::inline v1 {

std::uint64_t this_thread_number() noexcept {
  static constinit std::atomic<std::uint64_t> last{0};
  constinit static thread_local std::uint64_t number = 0;
  if (number == 0) number = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return number;
}

}  // namespace cenote::inline v1
