// The engine of a pool: what happens to an allocation and to a free, from the thread's cache down to the backing.
//
// How it works. What a thread frees on a stream goes to a small cache of the two (front_caches), and what they ask for
// comes from there if a block of that size lies in it: no lock that others hold, no event. Behind the caches is the
// heap: every free block belongs to the stream that it was freed on, or to `ready`, whose blocks any stream may use at
// once. An allocation takes these steps, the only ones:
//
//   1. the thread's cache      a block of exactly the size that this thread has freed on this stream
//   2. own or ready            a block freed on its own stream, or a ready one if that is smaller
//   3. borrowed                a block of another stream whose free an event covers, after a wait on the device, where
//                              memory is scarce
//   4. settled                 what has become ready meanwhile (asks the events)
//   5. brought                 memory from the backing, which says how: pages or chunks, new ones or what others freed
//   6. out of memory
//
// What a cache has no room for is freed to the heap: it returns to its stream and is merged with its neighbours; once
// for many such frees an event is recorded (stream_timelines), and none at all while the pool has met only one stream.
// After a stream went without what others had freed, each free has an event of its own for a while.
//
// While a stream is being captured into a graph, it takes no step that waits. The graph will use the addresses whenever
// it is launched, so that such a block belongs to that branch of that capture for ever; if any other stream frees it,
// it is retired. Over pages its memory comes from pages of the capture's own, and is taken back when the graph is gone
// (graph_lifetime), or serves later captures of its pool of graphs (graph_pool).
//
// Invariants: those of shared_heap and of the backing.
//
// Threads: any. Cost: O(1) for steps 1 and 2; see shared_heap and the backings for the rest.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>

#include "cenote/pool/backing.hpp"
#include "cenote/pool/shared_heap.hpp"
#include "cenote/pool/trimmer.hpp"

namespace cenote::inline v1::pool {

class engine {
 public:
  engine(int device, const std::function<std::unique_ptr<backing>(shared_heap&)>& make_backing);

  shared_heap& heap() noexcept { return heap_; }
  const shared_heap& heap() const noexcept { return heap_; }
  backing& memory() noexcept { return *memory_; }
  const backing& memory() const noexcept { return *memory_; }

  /// Null if there is no memory; throws what the upstream threw, if it knows more than that.
  void* allocate(stream_ref stream, std::size_t bytes, std::size_t alignment);
  void deallocate(stream_ref stream, void* pointer, std::size_t bytes);

  /// Without a wait, a lock that others hold, or a driver call that may block; null, or false, where that is not
  /// enough.
  void* allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment);
  bool deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes);

  std::size_t trim(std::size_t keep_bytes, bool wait) { return trimmer_.trim(keep_bytes, wait); }
  void finish_trim() noexcept { trimmer_.finish({}, legacy_default_id); }

 private:
  void* take_from_caches(stream_id id, std::size_t bytes) noexcept;
  void* allocate_from_heap(stream_ref stream, stream_id id, std::size_t bytes, std::size_t alignment);
  void* take_from_heap(request wanted);
  stream_id recognise(stream_ref stream) const;
  stream_id recognise_by_handle(stream_ref stream) const;
  stream_id recognise_or_report(stream_ref stream) const noexcept;
  stream_id identify_freeing(stream_ref stream) const;
  stream_id identify_or_report(stream_ref stream) const noexcept;
  stream_id identify_recognised(stream_ref stream, stream_id recognised) const noexcept;
  void give_to_heap(stream_ref stream, stream_id id, void* pointer, std::size_t said) noexcept;
  void give_spilled(stream_ref stream, stream_id recognised, block_index spilled) noexcept;
  void compare_sizes(const void* pointer, std::size_t said, std::size_t asked) noexcept {
    if (said != asked) [[unlikely]]
      correct_size(pointer, said, asked);
  }
  void correct_size(const void* pointer, std::size_t said, std::size_t asked) noexcept;

  const int device_;
  shared_heap heap_;
  front_caches& caches_;
  const std::unique_ptr<backing> memory_;
  trimmer trimmer_;
  const bool is_over_pages_;
  std::atomic<bool> has_compared_in_vain_{false};  // a free came with a wrong size, which is reported once
};

}  // namespace cenote::inline v1::pool
