// Pinned memory of the host in chunks, kept for whoever copies next: pinning takes longer than the copy.
//
//     take() ──▶ in use ──▶ its end ──▶ kept, up to a bound ──▶ take()      no chunk is pinned twice
//
// How it works
//   1. A chunk is memory of the host's own in huge pages, where it has them, which is registered with the driver. It
//   has
//      32 MiB, or, where threads have the host find the memory for many ahead (touched_chunks), up to 256 MiB.
//   2. A chunk that nobody uses any more is kept for the next one who asks, as long as the bound allows it.
//   3. forget(): the driver that knew the chunks is gone, and none of them is used again.
//
// Threads: any; `mutex_` guards the list, and no driver call is made under it. The object is never destroyed.
// Cost: a lock where a chunk is kept. Else pinning: that of touched_chunks, and 1.6 GB/s by cuMemHostAlloc (H200,
// driver 580.159.04).
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "cenote/driver/touched_chunks.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class pinned_chunks {
 public:
  /// The one of the process.
  static pinned_chunks& get();

  /// Every chunk has as many, or more.
  static constexpr std::size_t least_bytes = touched_chunks::piece_bytes;

  /// Pinned memory, a device that was in use when it was pinned, and how often everything had been forgotten by then.
  struct pinned {
    touched_chunks::chunk memory;
    int device = 0;
    unsigned times_forgotten = 0;
  };

  /// A chunk that every device can copy from and to. It is owned by whoever holds this object, and empty where the host
  /// has no memory left.
  class chunk {
   public:
    chunk() = default;
    ~chunk();
    chunk(chunk&& other) noexcept : is_(std::exchange(other.is_, {})) {}
    chunk& operator=(chunk&& other) noexcept {
      std::swap(is_, other.is_);
      return *this;
    }

    explicit operator bool() const noexcept { return is_.memory.at != nullptr; }
    std::byte* at() const noexcept { return is_.memory.at; }
    std::size_t bytes() const noexcept { return is_.memory.bytes; }

   private:
    friend pinned_chunks;
    explicit chunk(pinned is) noexcept : is_(is) {}

    pinned is_;
  };

  /// Throws cuda_error for a failure other than that memory ran out. `device` is one that is in use. Where no chunk is
  /// kept, one is pinned: of those that are `touched`, if that is not null.
  chunk take(int device, touched_chunks* touched = nullptr);

  /// Keeps at most so many bytes from now on. Returns how many bytes were given back to the host.
  std::size_t keep_at_most(std::size_t bytes);

  std::size_t kept_bytes() const;

  /// The chunks are pinned no more.
  void forget() noexcept;

 private:
  void give(pinned returned) noexcept;

  mutable process_mutex mutex_;  // guards all below
  std::vector<pinned> kept_;
  std::size_t kept_bytes_ = 0;
  std::size_t bound_ = default_bound();
  unsigned times_forgotten_ = 0;

  static std::size_t default_bound() noexcept;
};

}  // namespace cenote::inline v1
