#include "cenote/pool/page_pools.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1::pool {
namespace {

struct listed_pool {
  shared_heap* heap;
  backing* memory;
};

struct list {
  process_mutex mutex;
  std::vector<listed_pool> pools;  // guarded by it
};

list& all() {
  static immortal<list> known;  // a pool may outlive what is destroyed at exit
  return *known;
}

std::size_t give_back_of(const listed_pool& pool, std::size_t bytes, bool may_wait) {
  const std::unique_lock lock(pool.memory->growth(), std::try_to_lock);
  if (!lock.owns_lock()) return 0;
  if (may_wait) static_cast<void>(pool.heap->settle_after_all_work());
  pool.heap->settle();
  const std::size_t held = pool.memory->held();
  return pool.memory->give_back(held - std::min(held, bytes));
}

}  // namespace

page_pools::place::place(shared_heap& heap, backing& memory) : memory_(&memory) {
  const std::lock_guard lock(all().mutex);
  all().pools.push_back({&heap, &memory});
}

page_pools::place::~place() {
  const std::lock_guard lock(all().mutex);
  std::erase_if(all().pools, [this](const listed_pool& each) { return each.memory == memory_; });
}

std::size_t page_pools::give_back(const backing& taker, std::size_t bytes, bool may_wait) {
  const std::lock_guard lock(all().mutex);
  std::size_t given_back = 0;
  for (const listed_pool& each : all().pools) {
    if (given_back >= bytes) break;
    if (each.memory == &taker || each.heap->device() != taker.device()) continue;
    given_back += give_back_of(each, bytes - given_back, may_wait);
  }
  return given_back;
}

}  // namespace cenote::inline v1::pool
