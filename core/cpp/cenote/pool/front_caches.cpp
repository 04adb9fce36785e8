#include "cenote/pool/front_caches.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "cenote/ground/asymmetric_fence.hpp"

namespace cenote::inline v1::pool {
namespace {

std::uint64_t next_number() noexcept {
  static std::atomic<std::uint64_t> pools{0};
  return pools.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

constinit thread_local front_caches::memories* front_caches::remembered_ = nullptr;

front_caches::front_caches(block_heap& heap) : number_(next_number()), heap_(heap) {
  has_asymmetric_fence();  // registers the process now, and not at the first allocation, when it has more threads
}

void front_caches::open(stream_id stream) noexcept {
  if (stream.is_capturing()) return;
  // What a thread remembers may have been forgotten since, and serve another stream.
  if (const front_cache* const own = remembered(stream); own != nullptr && own->serves(stream.value)) return;
  const std::size_t slot = this_thread_slot();
  if (slot == no_slot) return;
  const std::lock_guard lock(mutex_);
  try {
    owned_cache& own = own_cache_locked(stream, slot);
    own.is_forgotten = false;
    remember(stream, own.cache.get());
  } catch (const std::bad_alloc&) {  // goes without
  }
}

/// The slot's cache for the stream: its own one, or an empty one of a stream that was forgotten, or a new one.
front_caches::owned_cache& front_caches::own_cache_locked(stream_id stream, std::size_t slot) {
  owned_cache* vacant = nullptr;
  for (owned_cache& each : caches_) {
    if (each.slot != slot) continue;
    if (each.stream == stream.value) return each;
    if (each.is_forgotten && each.cache->bytes() == 0) vacant = &each;
  }
  if (vacant == nullptr) {
    caches_.push_back({stream.value, slot, false, std::make_unique<front_cache>(heap_.blocks(), heap_.directory())});
    vacant = &caches_.back();
  }
  streams_.fetch_or(bit_of(stream), std::memory_order_relaxed);
  vacant->stream = stream.value;
  vacant->cache->assign(stream.value);
  return *vacant;
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

std::size_t front_caches::bytes_of_all() const {
  return sum([](const front_cache& each) { return each.bytes(); });
}

std::size_t front_caches::blocks() const {
  return alone([this] {
    std::size_t count = 0;
    for (const owned_cache& each : caches_) count += each.cache->blocks();
    return count;
  });
}

std::uint64_t front_caches::hits() const {
  return sum([](const front_cache& each) { return each.hits(); });
}

void front_caches::check() const {
  alone([this] {
    for (const owned_cache& each : caches_) each.cache->check();
  });
}

}  // namespace cenote::inline v1::pool
