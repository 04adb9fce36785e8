// Frees blocks whose last use is on streams that nobody names any more: after all work that the device has been given.
//
// Such are blocks passed to record_stream, blocks whose allocation stream may be gone when they are freed, and those
// that were used last on another thread's per-thread default stream. No user stream is touched, and none is made to
// wait: one event over the whole context is awaited by a stream of our own (aside_stream), and the block is freed in
// the order of that stream. It becomes reusable as that work completes. Where streams of other devices used the block,
// an event over the context of each device that is in use is awaited.
//
// Where the host has no memory to hold a free back, the host waits for all work at once, and frees then.
//
// Such an event would invalidate a capture in progress. Frees are therefore held back while anyone says that a capture
// is underway on a device whose work they wait for (capture.hpp), or the freeing stream itself is being captured.
//
// Threads: all functions from any thread. `mutex_` guards what is held back; no driver call is made under it.
// Cost: an event, a record and a wait for each free: 0.7 µs as the sum of these calls (driver 580, H100).
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"

namespace cenote::inline v1 {

/// The devices whose streams may have used a block.
enum class reach : std::uint8_t { its_device, every_device };

class reclaimer {
 public:
  explicit reclaimer(int device) : device_(device) {}

  /// The one of `device`; never destroyed, and made without memory of the host.
  CENOTE_EXPORT static reclaimer& of(int device);

  /// `freed_on` is a live stream of the caller's.
  CENOTE_EXPORT void free_after_all_work(std::shared_ptr<memory_resource> resource, void* pointer, std::size_t bytes,
                                         stream_ref freed_on, reach used_by = reach::its_device,
                                         std::size_t alignment = default_alignment) noexcept;

  /// Frees what was held back, unless it has to be held back still.
  CENOTE_EXPORT void free_pending() noexcept;

  /// The same on each device that is in use: what is held back may wait for the captures of another device.
  static void free_pending_on_every_device() noexcept;

  std::size_t held_back() const;

 private:
  struct pending_free {
    std::shared_ptr<memory_resource> resource;
    void* pointer;
    std::size_t bytes;
    std::size_t alignment;
    reach used_by;
  };

  bool hold_back(pending_free freed, stream_ref freed_on);
  std::list<pending_free> take_what_may_be_freed();
  bool is_capture_underway_elsewhere() const;
  template <class Body>
  void for_each_other_device(Body&& body) const;
  void free_now(const std::list<pending_free>& frees);
  void put_back(std::list<pending_free> frees) noexcept;

  int device_;
  mutable driver_mutex mutex_;       // guards `pending_`
  std::list<pending_free> pending_;  // so that putting back what could not be freed needs no memory of the host
};

}  // namespace cenote::inline v1
