#include "cenote/resources/front_caches.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "cenote/ground/thread_slot.hpp"

namespace cenote {
namespace {

/// No stream has this id; the driver counts up from small numbers.
constexpr std::uint64_t nobody = ~std::uint64_t{2};

std::uint64_t next_number() noexcept {
  static std::atomic<std::uint64_t> pools{0};
  return pools.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

constinit thread_local front_caches::memories* front_caches::remembered_ = nullptr;

front_caches::front_caches(block_heap& heap) : number_(next_number()), heap_(heap) {}

void front_caches::open(stream_id stream) noexcept {
  if (stream.is_capturing()) return;
  // What a thread remembers may have been forgotten since, and serve another stream.
  if (const front_cache* const own = remembered(stream); own != nullptr && own->serves(stream.value)) return;
  const std::size_t slot = this_thread_slot();
  const std::lock_guard lock(mutex_);
  auto own = std::find_if(caches_.begin(), caches_.end(),
                          [&](const owned_cache& each) { return each.stream == stream.value && each.slot == slot; });
  if (own == caches_.end()) own = std::find_if(caches_.begin(), caches_.end(), is_left_to_others);
  if (own == caches_.end()) {
    try {
      caches_.push_back({nobody, slot, false, std::make_unique<front_cache>(heap_.blocks(), heap_.directory())});
    } catch (const std::bad_alloc&) {
      return;  // goes without
    }
    own = std::prev(caches_.end());
  }
  if (own->stream == nobody) own->cache->assign(stream.value);
  own->stream = stream.value;
  own->slot = slot;
  own->is_forgotten = false;
  remember(stream, own->cache.get());
}

void front_caches::remember(stream_id stream, front_cache* cache) const noexcept {
  thread_local bool has_ended = false;  // a thread-local's destructor may still free memory
  struct end_of_thread {
    ~end_of_thread() {
      has_ended = true;
      delete std::exchange(remembered_, nullptr);
    }
  };
  if (has_ended) return;
  thread_local const end_of_thread end;
  if (remembered_ == nullptr) remembered_ = new (std::nothrow) memories;
  if (remembered_ != nullptr) remembered_->by_stream[place_of(stream)] = {number_, stream.value, cache};
}

void front_caches::forget(stream_id stream) noexcept {
  const std::lock_guard lock(mutex_);
  for (owned_cache& each : caches_) {
    if (each.stream != stream.value) continue;
    each.is_forgotten = true;
    is_left_to_others(each);
  }
}

/// Whether the cache serves nobody: a forgotten stream's does not once it is empty.
bool front_caches::is_left_to_others(owned_cache& cache) noexcept {
  if (cache.is_forgotten && cache.cache->assign(nobody)) cache.stream = nobody;
  return cache.stream == nobody;
}

std::size_t front_caches::bytes() const {
  return sum([](const front_cache& each) { return each.bytes(); });
}

std::size_t front_caches::blocks() const {
  return sum([](const front_cache& each) { return each.blocks(); });
}

std::uint64_t front_caches::hits() const {
  return sum([](const front_cache& each) { return each.hits(); });
}

void front_caches::check() const {
  const std::lock_guard lock(mutex_);
  for (const owned_cache& each : caches_) each.cache->check();
}

}  // namespace cenote
