// A pause of a pool over pages: its pages go back to the device, its addresses stay, and what the pages held is kept
// elsewhere until new ones come to the same addresses.
//
//     running ──hide───▶ [ copy out ▷ unmap ] ──▶ release ──▶ paused ──resume──▶ [ create ▷ map ▷ copy back ] ──▶
//     running
//        ▲                      │ a call fails                  ▲                          │ a call fails, or
//        └──── mapped again ◀───┘                               └── unmapped, released ◀───┘ memory is missing
//
// How it works
//   1. Only what somebody may want is copied: blocks in use, and what graphs keep. Blocks that lie close together are
//      copied as one.
//   2. Pausing queues all copies on a stream of its own, and unmaps pages group by group behind them, also while memory
//      is still being pinned for later ones. The pages' memory is released at the end, when nothing can fail any more:
//      until then a failure maps the same pages again. Where several pools are paused together that is when all of them
//      are unmapped (hide, then release).
//   3. Resuming makes page after page, and queues the copies into it meanwhile. A failure takes all new pages back;
//      the copies are kept until the last one is there. Those that the driver refuses to unmap, twice, stay mapped
//      for the next attempt, which only copies into them.
//   4. Meanwhile the host can read what is kept, where it is kept.
//   5. A page that became wholly free while it was paused does not come again.
//   6. Small pages that lie in a row come again as large ones, of about a 256th of the pool: there are fewer of them
//      to unmap and release the next time.
//
// Invariants
//   I1  while paused, a page of the heap is mapped if and only if it is none of `parked_`, or is_mapped there
//   I2  the contents of a parked page are in its memory, if that is kept, or else in `where_`
//
// Threads: one at a time (the pool's growth lock); is_paused() and bytes() from any.
// Cost: the copies, and beside them 50 us a page each way (H200, driver 580.159.04).
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/paused_addresses.hpp"
#include "cenote/pool/mapped_pages.hpp"
#include "cenote/pool/parking.hpp"
#include "cenote/pool/shared_heap.hpp"

namespace cenote::inline v1::pool {

class page_pause {
 public:
  explicit page_pause(shared_heap& heap) noexcept : heap_(heap) {}

  bool is_paused() const noexcept { return is_paused_.load(std::memory_order_acquire); }

  /// The size of the pages that have been given back.
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

  /// The heap is closed, and its work done. If it throws, all is as it was, unless the driver refuses even to map pages
  /// again that it had just unmapped: then the pool is paused, with these pages, and the error says so. Afterwards it
  /// is paused with the memory of all its pages: resume() maps the same ones again.
  void hide(mapped_pages& pages, std::unique_ptr<parking> where);

  /// After hide(): the memory is the device's again.
  void release(mapped_pages& pages) noexcept;

  /// Copies what the paused pool held to the host. False where some of the bytes are not kept; bytes that were free may
  /// be kept or not. Not while hide(), release() or resume() runs.
  bool read(std::byte* to, const std::byte* from, std::size_t bytes) const;

  /// `make_room(bytes)` has others give back memory. If it throws, the pool is paused as before: out_of_memory says how
  /// much is missing.
  void resume(mapped_pages& pages, const std::function<std::size_t(std::size_t bytes)>& make_room);

 private:
  /// Bytes that lie together, in one page, and where they are kept.
  struct extent {
    std::byte* at;
    std::size_t bytes;
    std::size_t offset;
  };

  struct parked_page {
    page at;
    std::vector<extent> contents;
    std::shared_ptr<const physical_page> memory = nullptr;  // null once it is released
    bool is_mapped = false;                                 // a new page, without the contents
  };

  std::vector<parked_page> look_through() const;
  void copy_out_and_unmap(std::vector<parked_page>& leaving, mapped_pages& pages, parking& where, stream_ref stream);
  void map_again(std::vector<parked_page>& left, mapped_pages& pages) noexcept;
  void be_paused(std::vector<parked_page> parked, std::unique_ptr<parking> where) noexcept;
  void drop_free_pages(mapped_pages& pages);
  void map_kept_memory(mapped_pages& pages);
  void merge_pages();
  parked_page merged(std::size_t first, std::size_t end) const;
  std::size_t end_of_large_page(std::size_t first, std::size_t largest, const std::byte* base) const noexcept;
  void copy_back(const parked_page& each, stream_ref stream);
  void take_back(std::size_t brought, mapped_pages& pages) noexcept;
  [[noreturn]] void refuse(std::size_t brought) const;
  int device() const noexcept { return heap_.device(); }

  shared_heap& heap_;
  std::vector<parked_page> parked_;  // in order of address
  std::unique_ptr<parking> where_;
  std::optional<paused_addresses> addresses_;
  std::atomic<bool> is_paused_{false};
  std::atomic<std::size_t> bytes_{0};
};

}  // namespace cenote::inline v1::pool
