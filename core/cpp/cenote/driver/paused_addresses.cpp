#include "cenote/driver/paused_addresses.hpp"

#include <atomic>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

struct paused_ranges {
  process_mutex mutex;
  std::map<const std::byte*, std::size_t> bytes_from;  // guarded by it
  std::atomic<std::size_t> count{0};

  bool has(const void* pointer) const {
    const auto* const address = static_cast<const std::byte*>(pointer);
    const auto behind = bytes_from.upper_bound(address);
    if (behind == bytes_from.begin()) return false;
    const auto& [base, bytes] = *std::prev(behind);
    return static_cast<std::size_t>(address - base) < bytes;
  }
};

paused_ranges& ranges() {
  static immortal<paused_ranges> the_one;
  return *the_one;
}

}  // namespace

paused_addresses::paused_addresses(const std::byte* base, std::size_t bytes) : base_(base) {
  paused_ranges& all = ranges();
  const std::lock_guard lock(all.mutex);
  all.bytes_from[base] = bytes;
  all.count.store(all.bytes_from.size(), std::memory_order_release);
}

paused_addresses::~paused_addresses() {
  paused_ranges& all = ranges();
  const std::lock_guard lock(all.mutex);
  all.bytes_from.erase(base_);
  all.count.store(all.bytes_from.size(), std::memory_order_release);
}

void paused_addresses::refuse(const void* one, const void* other) {
  paused_ranges& all = ranges();
  if (all.count.load(std::memory_order_acquire) == 0) return;
  const std::lock_guard lock(all.mutex);
  if (all.has(one) || all.has(other)) {
    throw std::runtime_error("the memory is paused, and nothing can use it: resume it first");
  }
}

}  // namespace cenote::inline v1
