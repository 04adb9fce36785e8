// Where a pool's chunks come from and go back to: its upstream, within a maximum, in sizes that suit the pool.
//
// How it works
//   1. A chunk is as large as all that is held already, at least 2 MiB and at most 1 GiB, or as the step that was set;
//   or
//      what is needed, if that is more.
//   2. Where the upstream has no chunk of this size, half of it is asked for, down to what is needed.
//   3. Bytes are booked before the upstream is asked, so that threads never pass the maximum together.
//
// Invariant
//   I1  held() = bytes of all chunks + bytes being asked of the upstream, and never passes the maximum
//
// Threads: any; `mutex_` guards the books, and the upstream is called outside it.
// Cost: the upstream's.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>

#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/structures/block.hpp"

namespace cenote::inline v1::pool {

class chunk_source {
 public:
  chunk_source(std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> maximum)
      : upstream_(std::move(upstream)), maximum_(maximum) {}

  const std::shared_ptr<memory_resource>& upstream() const noexcept { return upstream_; }
  std::optional<std::size_t> maximum() const noexcept { return maximum_; }
  std::size_t held() const;

  /// From now on chunks are of `bytes`, or of what is needed if that is more.
  void set_step(std::size_t bytes);

  /// A chunk of exactly `bytes`, usable on every stream; throws what the upstream does.
  chunk take_exactly(std::size_t bytes);

  /// A chunk of at least `minimum` bytes: in the order of `stream` if
  /// `may_use_stream`, usable everywhere otherwise. Nothing if there is none; `refusal` is then what the upstream
  /// threw, if it threw out_of_memory.
  std::optional<chunk> take(stream_ref stream, bool may_use_stream, std::size_t minimum, std::exception_ptr& refusal);

  /// Gives a chunk back in the order of `stream`.
  void give(stream_ref stream, chunk unused) noexcept;

 private:
  std::size_t preferred(std::size_t minimum) const;
  std::optional<std::size_t> book(std::size_t wanted, std::size_t minimum);
  void unbook(std::size_t bytes) noexcept;
  void* ask(stream_ref stream, bool may_use_stream, std::size_t bytes);

  const std::shared_ptr<memory_resource> upstream_;
  const std::optional<std::size_t> maximum_;
  mutable object_mutex mutex_;  // guards what follows
  std::size_t held_ = 0;
  std::optional<std::size_t> step_;
};

}  // namespace cenote::inline v1::pool
