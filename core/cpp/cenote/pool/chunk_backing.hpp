// Chunks of any upstream under a pool.
//
// How it works. bring() takes, in this order:
//
//   1. where most of the pool is free, or much of it lies in caches: any free block at all (shared_heap::reclaim)
//   2. a new chunk from the upstream             (outside the lock that others need)
//   3. any free block at all
//   4. a new chunk, after chunks that are wholly free have been given back
//
// Invariants: those of backing, and of chunk_source.
//
// Threads: any, under growth(). Cost: the upstream's.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "cenote/pool/backing.hpp"
#include "cenote/pool/chunk_source.hpp"

namespace cenote::inline v1::pool {

class chunk_backing final : public backing {
 public:
  chunk_backing(shared_heap& heap, std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> maximum)
      : backing(heap, upstream, maximum), chunks_(std::move(upstream), maximum) {}

  /// From now on chunks are of `bytes`, or of what is needed if that is more.
  void grow_in_steps_of(std::size_t bytes) { chunks_.set_step(bytes); }

  std::size_t held() const override { return chunks_.held(); }
  void begin(std::size_t bytes) override;
  void* bring(request& wanted) override;
  std::size_t give_back(std::size_t keep_bytes) override;
  void end() override;
  void check() const override;

 private:
  void take_first(std::size_t bytes);
  void give_back_first() noexcept;
  bool has_plenty(const request& wanted) const;
  static std::size_t smallest_chunk(const request& wanted);
  void* grow(request& wanted);
  void* make_room_and_grow(request& wanted);
  void* add_and_take(const request& wanted, chunk fresh);
  void give_up(const request& wanted, chunk fresh) noexcept;
  std::size_t release(stream_ref stream, std::optional<stream_id> of, std::size_t keep_bytes);
  static bool order_legacy_stream_after_all_work(int device);
  void size_changed();

  chunk_source chunks_;  // by itself
};

}  // namespace cenote::inline v1::pool
