#include "sim/device/thread_state.hpp"

#include <atomic>

namespace cenote::sim {

thread_state& this_thread() {
  static std::atomic<std::uint64_t> threads{0};
  thread_local constinit thread_state state;
  if (state.number == 0) {
    state.number = ++threads;
  }
  return state;
}

}  // namespace cenote::sim
