// The front caches of a pool: one for each stream and thread that free there.
//
//                 thread 0     thread 1     …
//     stream 17    cache        cache             each is its thread's, which takes and gives there without a locked
//     stream 18    cache                          instruction, and shares nothing that is written
//
// How it works
//   1. take() and give() go to the cache of the stream and the calling thread, which the thread remembers for its last
//      64 streams (thread_local). Without one they do nothing: open() makes it, once the pool has met the stream.
//   2. A thread remembers as well which stream a handle was when it last allocated, so that a free need not ask the
//      driver. The handle may be another stream's by then: recognise() says who may rely on it.
//   3. Threads go by their slot (ground/thread_slot.hpp): the caches of a thread that ended are the slot's next
//      thread's.
//   4. Whoever needs the memory that lies in other threads' caches closes them, drains them, and opens them again. A
//      thread that finds its cache closed does without.
//   5. One block that is too large for a cache may be set aside beside them (last_freed.hpp).
//   6. A stream that is forgotten leaves its caches to others of the same thread, each once it is empty.
//
// Invariants: those of front_cache; besides
//   I1  a cache serves one stream at a time, and takes and gives for no other, whatever a thread remembers
//   I2  a cache is one slot's as long as there is the pool
//
// Threads: `mutex_` guards the list of caches, and is held by who has closed some of them; each cache guards itself.
// drain() is called under the pool's lock, take() and give() under none. Cost: that of front_cache and a thread-local
// read; for the rest O(caches), and a system call where caches of other threads are closed.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/thread_slot.hpp"
#include "cenote/pool/last_freed.hpp"
#include "cenote/structures/block_heap.hpp"
#include "cenote/structures/front_cache.hpp"

namespace cenote::inline v1::pool {

class front_caches {
 public:
  explicit front_caches(block_heap& heap);

  /// The most that one cache may hold, in bytes.
  void set_budget(std::size_t bytes) noexcept { budget_.store(bytes, std::memory_order_relaxed); }

  /// Whether a cache keeps blocks of so many bytes at all.
  bool keeps(std::size_t bytes) const noexcept {
    return bytes <= front_cache::largest(budget_.load(std::memory_order_relaxed));
  }

  /// The stream that this thread has last allocated on by this handle; none if it does not remember. It is the one that
  /// the handle stands for, or one that is gone: a cache of which may be given blocks, as nobody takes from it any more
  /// but who drains it and waits for all work. No event may be taken for one of its.
  std::optional<stream_id> recognise(stream_ref stream) const noexcept {
    if (remembered_ == nullptr) return std::nullopt;
    const acquaintance& last = remembered_->by_handle[place_of(stream)];
    if (last.handle != stream.value() || last.pool != number_) return std::nullopt;
    return stream_id{last.stream};
  }

  /// `stream` is who the driver says that the handle is.
  void meet(stream_ref handle, stream_id stream) const noexcept {
    if (remembered_ == nullptr || handle.is_legacy_default() || stream.is_capturing()) return;
    remembered_->by_handle[place_of(handle)] = {number_, handle.value(), stream.value};
  }

  /// A block of `bytes`, a multiple of 256, that this thread has freed on this stream, and of which so many were not
  /// asked for; null if none is cached.
  void* take(stream_id stream, std::size_t bytes, std::uint8_t unasked = 0) noexcept {
    front_cache* const own = remembered(stream);
    return own == nullptr ? nullptr : own->take(stream.value, bytes, unasked);
  }

  /// See front_cache::give; 0 as well if open() has not been called.
  std::size_t give(stream_id stream, const void* address, block_index* spilled) noexcept {
    front_cache* const own = remembered(stream);
    return own == nullptr ? 0 : own->give(stream.value, address, budget_.load(std::memory_order_relaxed), spilled);
  }

  /// The same for a block that is too large for a cache: if it is the one that was set aside.
  void* take_back(stream_id stream, std::size_t bytes, std::uint8_t unasked) noexcept {
    front_cache* const own = remembered(stream);
    if (own == nullptr) return nullptr;
    return own->take_back(stream.value, unasked, [&] { return last_freed_.take(stream, bytes); });
  }
  std::size_t set_aside(stream_id stream, const void* address) noexcept {
    front_cache* const own = remembered(stream);
    if (own == nullptr) return 0;
    const auto put = [&](block_index index, std::size_t bytes) { return last_freed_.put({stream, index, bytes}); };
    return own->set_aside(stream.value, address, put);
  }
  last_freed& last() noexcept { return last_freed_; }
  const last_freed& last() const noexcept { return last_freed_; }

  /// Whether open() makes sense for blocks of so many bytes.
  bool may_keep(std::size_t bytes) const noexcept { return keeps(bytes) || last_freed_.is_allowed(); }

  /// See front_cache::restock and stock; 1 and false as well if open() has not been called.
  std::uint32_t restock(stream_id stream, std::size_t bytes) noexcept {
    front_cache* const own = remembered(stream);
    return own == nullptr ? 1 : own->restock(stream.value, bytes, budget_.load(std::memory_order_relaxed));
  }
  bool stock(stream_id stream, block_index index) noexcept {
    front_cache* const own = remembered(stream);
    return own != nullptr && own->stock(stream.value, index);
  }

  /// From now on the calling thread has a cache for this stream; not for one in a capture.
  void open(stream_id stream) noexcept;

  /// Empties the caches of `stream`, or of all. `receiver(stream)` says for each that is not empty who gets the blocks:
  /// a function of a block_index that does not throw. False if there were none.
  template <class Receiver>
  bool drain(std::optional<stream_id> stream, Receiver&& receiver) {
    if (stream && (streams_.load(std::memory_order_relaxed) & bit_of(*stream)) == 0) return false;
    bool had_any = false;
    const std::lock_guard lock(mutex_);
    const auto is_wanted = [&](const owned_cache& each) {
      return (!stream || each.stream == stream->value) && each.cache->bytes() != 0;
    };
    if (std::none_of(caches_.begin(), caches_.end(), is_wanted)) return false;
    const closed_caches closed(caches_, this_thread_slot(), is_wanted);
    for (const owned_cache& each : caches_) {
      if (!each.is_reserved) continue;
      had_any = true;
      const auto receive = receiver(stream_id{each.stream});
      for (block_index index = each.cache->drain(); index != no_block;) {
        const block_index next = heap_[index].free_next;
        receive(index);
        index = next;
      }
    }
    return had_any;
  }

  /// Forgets the streams that will not come again, or not soon.
  template <class Gone>
  void forget_if(Gone&& is_gone) noexcept {
    const std::lock_guard lock(mutex_);
    for (owned_cache& each : caches_) each.is_forgotten = each.is_forgotten || is_gone(stream_id{each.stream});
  }

  /// Runs `change` while no cache looks into the directory.
  template <class Change>
  decltype(auto) alone(Change&& change) const {
    const std::lock_guard lock(mutex_);
    const closed_caches closed(caches_, this_thread_slot(), [](const owned_cache&) { return true; });
    return change();
  }

  /// Takes no lock as long as no stream has a cache, as where all blocks are large.
  std::size_t bytes() const { return streams_.load(std::memory_order_relaxed) == 0 ? 0 : bytes_of_all(); }
  std::size_t blocks() const;
  std::uint64_t hits() const;
  void check() const;

 private:
  struct owned_cache {
    std::uint64_t stream;
    std::size_t slot;
    bool is_forgotten;  // another stream's as soon as it is empty, unless its own comes again
    std::unique_ptr<front_cache> cache;
    mutable bool is_reserved = false;  // by the closed_caches that lives
  };

  /// What a thread remembers. A pool's number is never given again, so what a dead pool left behind is not believed.
  struct memory {
    std::uint64_t pool = 0;
    std::uint64_t stream = 0;
    front_cache* cache = nullptr;
  };

  /// While it lives, the wanted caches are the calling thread's alone. Those of its own slot are so anyway.
  class closed_caches {
   public:
    template <class Wanted>
    closed_caches(const std::vector<owned_cache>& caches, std::size_t own_slot, Wanted&& is_wanted)
        : caches_(caches), own_slot_(own_slot) {
      bool has_closed = false;
      for (const owned_cache& each : caches) {
        each.is_reserved = is_wanted(each);
        if (!is_closed(each)) continue;
        each.cache->gate().close();
        has_closed = true;
      }
      if (!has_closed) return;
      biased_lock::pass_fence();
      for (const owned_cache& each : caches) {
        if (is_closed(each)) each.cache->gate().wait_until_left();
      }
    }
    ~closed_caches() {
      for (const owned_cache& each : caches_) {
        if (is_closed(each)) each.cache->gate().open();
        each.is_reserved = false;
      }
    }
    closed_caches(const closed_caches&) = delete;
    closed_caches& operator=(const closed_caches&) = delete;

   private:
    bool is_closed(const owned_cache& each) const noexcept { return each.is_reserved && each.slot != own_slot_; }

    const std::vector<owned_cache>& caches_;
    const std::size_t own_slot_;
  };

  struct acquaintance {
    std::uint64_t pool = 0;
    CUstream_st* handle = nullptr;
    std::uint64_t stream = 0;
  };

  struct memories {
    std::array<memory, 64> by_stream;
    std::array<acquaintance, 16> by_handle;
  };

  // Made at a thread's first free and gone with it. Read at every allocation: initial-exec spares a call into the
  // loader, and a pointer is all that a library loaded late should take of the room that there is for it.
  [[gnu::tls_model("initial-exec")]] static constinit thread_local memories* remembered_;

  std::size_t bytes_of_all() const;
  std::size_t place_of(stream_id stream) const noexcept {
    return (stream.value ^ number_) % std::tuple_size_v<decltype(memories::by_stream)>;
  }
  std::size_t place_of(stream_ref handle) const noexcept {
    const std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(handle.value()) / 16 ^ number_;
    return (mixed ^ mixed >> 8) % std::tuple_size_v<decltype(memories::by_handle)>;
  }
  front_cache* remembered(stream_id stream) const noexcept {
    if (remembered_ == nullptr || stream.is_capturing()) return nullptr;
    const memory& last = remembered_->by_stream[place_of(stream)];
    return last.stream == stream.value && last.pool == number_ ? last.cache : nullptr;
  }
  void remember(stream_id stream, front_cache* cache) const noexcept;
  owned_cache& own_cache_locked(stream_id stream, std::size_t slot);

  template <class Figure>
  auto sum(Figure&& figure) const {
    decltype(figure(std::declval<const front_cache&>())) total{};
    const std::lock_guard lock(mutex_);
    for (const owned_cache& each : caches_) total += figure(*each.cache);
    return total;
  }

  static std::uint64_t bit_of(stream_id stream) noexcept { return std::uint64_t{1} << stream.value % 64; }

  const std::uint64_t number_;
  std::atomic<std::size_t> budget_{0};
  std::atomic<std::uint64_t> streams_{0};  // the bits of those that ever had a cache
  block_heap& heap_;
  last_freed last_freed_;
  mutable object_mutex mutex_;  // guards `caches_`, not what they hold
  std::vector<owned_cache> caches_;
};

}  // namespace cenote::inline v1::pool
