// Pinned memory of the host in chunks, kept for whoever copies next: pinning takes longer than the copy.
//
//     take() ──▶ in use ──▶ its end ──▶ kept, up to a bound ──▶ take()      no chunk is pinned twice
//
// How it works
//   1. A chunk is memory of the host's own in huge pages, where the host has them, and is registered with the driver.
//      Its size is 32 MiB, or up to 1 GiB where threads have the host find much memory ahead (touched_chunks).
//   2. A chunk that nobody uses any more is kept whole, as long as the bound allows it. take() chooses the smallest
//      that is enough, or else the largest, but none of more than four times the bytes that are wanted.
//   3. forget(): the driver that knew the chunks is gone, and none of them is used again.
//
// Threads: any; `mutex_` guards the list, and no driver call is made under it. The object is never destroyed.
// Cost: a lock, and a look at each that is kept. Pinning costs what touched_chunks says; the driver's own pinned memory
// (cuMemHostAlloc) comes at 1.6 GB/s (H200, driver 580.159.04).
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/driver/touched_chunks.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class pinned_chunks {
 public:
  /// The one of the process.
  static pinned_chunks& get();

  /// The size of the smallest chunk.
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
    chunk(chunk&& other) noexcept : pinned_(std::exchange(other.pinned_, {})) {}
    chunk& operator=(chunk&& other) noexcept {
      std::swap(pinned_, other.pinned_);
      return *this;
    }

    explicit operator bool() const noexcept { return pinned_.memory.at != nullptr; }
    std::byte* at() const noexcept { return pinned_.memory.at; }
    std::size_t bytes() const noexcept { return pinned_.memory.bytes; }

   private:
    friend pinned_chunks;
    explicit chunk(pinned memory) noexcept : pinned_(memory) {}

    pinned pinned_;
  };

  /// A chunk for so many bytes, or for some of them. Throws cuda_error for a failure other than that memory ran out.
  /// `device` is one that is in use. Where no chunk is kept that suits, one is pinned: of those that are `touched`, if
  /// that is not null.
  chunk take(int device, std::size_t bytes, touched_chunks* touched = nullptr);

  /// Keeps at most so many bytes from now on, and gives the largest chunks back first. Returns how many bytes were
  /// given back to the host.
  std::size_t keep_at_most(std::size_t bytes);

  std::size_t kept_bytes() const;

  /// How many of so many bytes take() would serve from what is kept.
  std::size_t kept_bytes_for(std::size_t bytes) const;

  /// The chunks are pinned no more.
  void forget() noexcept;

 private:
  void give(pinned returned) noexcept;
  std::optional<pinned> take_kept_locked(std::size_t bytes) noexcept;
  static std::size_t choose(const std::vector<pinned>& among, std::size_t bytes) noexcept;

  mutable process_mutex mutex_;  // guards all below
  std::vector<pinned> kept_;
  std::size_t kept_bytes_ = 0;
  std::size_t bound_ = default_bound();
  unsigned times_forgotten_ = 0;

  static std::size_t default_bound() noexcept;
};

}  // namespace cenote::inline v1
