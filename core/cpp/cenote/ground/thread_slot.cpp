#include "cenote/ground/thread_slot.hpp"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

/// Which numbers are taken; the lowest free one is handed out. In a forked child those of threads that are not there
/// stay taken.
class slot_table {
 public:
  std::size_t take() noexcept {
    const std::lock_guard lock(mutex_);
    const auto free = std::find(is_taken_.begin(), is_taken_.end(), false);
    const auto slot = static_cast<std::size_t>(free - is_taken_.begin());
    try {
      if (free == is_taken_.end()) is_taken_.push_back(false);
    } catch (const std::bad_alloc&) {
      return no_slot;
    }
    is_taken_[slot] = true;
    return slot;
  }

  void give(std::size_t slot) noexcept {
    if (slot == no_slot) return;
    const std::lock_guard lock(mutex_);
    is_taken_[slot] = false;
  }

 private:
  process_mutex mutex_;  // guards `is_taken_`
  std::vector<bool> is_taken_;
};

/// Never destroyed: threads end after main does.
slot_table& slots() noexcept {
  static immortal<slot_table> the_one;
  return *the_one;
}

[[maybe_unused]] const slot_table& table_made_while_there_is_one_thread =
    slots();  // none waits in a forked child for it to be made

constinit thread_local bool is_given_back = false;

/// Read for each block that a heap gives: initial-exec spares a call into the loader.
[[gnu::tls_model("initial-exec")]] constinit thread_local std::size_t own_slot = no_slot;

struct held_slot {
  held_slot() noexcept { own_slot = slots().take(); }
  ~held_slot() {
    is_given_back = true;  // other destructors of the thread may still ask
    slots().give(std::exchange(own_slot, no_slot));
  }
  held_slot(const held_slot&) = delete;
  held_slot& operator=(const held_slot&) = delete;
};

}  // namespace

CENOTE_HOT std::size_t this_thread_slot() noexcept {
  if (own_slot != no_slot) [[likely]]
    return own_slot;
  if (is_given_back) return no_slot;
  thread_local const held_slot held;
  return own_slot;
}

}  // namespace cenote::inline v1
