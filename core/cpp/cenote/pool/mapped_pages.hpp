// The pages that a pool has mapped: where they are, where they were, and what of the device they hold.
//
//     make or move ──▶ mapped ──▶ retired, with an event ──▶ unmapped, once the event is complete
//                        ▲                                     │
//                        └── the same page, at its new address ┘
//
// How it works
//   1. A range of addresses several times as large as the device is reserved at the beginning; addresses cost nothing.
//   2. bring() maps a page: a new one, or one that is mapped elsewhere, which then has two addresses.
//   3. retire() says that an address is not used any more, once an event is complete. reap() unmaps what is complete,
//      and the memory of a page goes back to the device with its last address.
//   4. New pages are of about a thousandth of what is held with them, between 2 and 32 MiB: then there are about a
//      thousand pages, and growth costs 2 to 4 ms a GiB. A pool that is to be paused has a fourth of them. Near the
//      limit they are smaller, so that less is lost at their edges.
//
// Invariant
//   I1  held() = bytes of all pages, and never passes the maximum but for pages that are retired
//
// Threads: one at a time changes it (the pool's growth lock); held() from any. What is mapped is opened to devices that
// are used later from whatever thread uses them (mapping_table.hpp); what is retired is not, for no new work uses it.
// Cost: the driver's, some 60 us a page on an H200; about 100 bytes of host memory a page.
// Source: docs/design/virtual-memory.md.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "cenote/driver/address_reservation.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/mapping_table.hpp"
#include "cenote/driver/page_mapping.hpp"
#include "cenote/driver/physical_page.hpp"
#include "cenote/structures/paged_range.hpp"

namespace cenote::inline v1::pool {

class mapped_pages {
 public:
  /// Throws cuda_error where the device has no virtual memory, or no range is left.
  mapped_pages(const page_properties& properties, const peer_devices& peers, std::optional<std::size_t> maximum);

  std::byte* base() const noexcept { return addresses_->base(); }
  std::size_t range_bytes() const noexcept { return addresses_->bytes(); }

  std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }
  std::optional<std::size_t> maximum() const noexcept { return maximum_; }

  /// Bytes that new pages may have before held() passes `bound` or the maximum.
  std::size_t room(std::size_t bound) const noexcept;

  /// How many pages a pool has that is paused: each costs 0.1 ms to give back and to bring.
  static constexpr std::size_t pages_of_a_paused_pool = 256;

  /// From now on so few are made.
  void expect_pauses() noexcept { pages_of_a_pool_ = pages_of_a_paused_pool; }

  /// The size of the pages that are made for so many more bytes.
  std::size_t page_bytes_to_grow(std::size_t bytes) const noexcept;

  /// False when memory ran out; nothing has changed then. Throws cuda_error for any other failure.
  bool bring(const paged_range::filling& wanted, stream_ref stream);

  /// Takes back what bring() did. Nobody has used the page there.
  void undo(const paged_range::filling& brought) noexcept;

  /// Unmaps a page and keeps its memory, which show() maps again. Throws cuda_error, with nothing changed.
  std::shared_ptr<const physical_page> hide(const page& shown);

  /// False when memory ran out; nothing has changed then. Throws cuda_error for any other failure.
  bool show(std::shared_ptr<const physical_page> hidden, std::byte* at);

  /// So many bytes of hidden pages are the device's again.
  void forget_hidden(std::size_t bytes) noexcept { held_.fetch_sub(bytes, std::memory_order_relaxed); }

  /// Whether an address is waiting to be unmapped.
  bool has_retired() const noexcept { return !retired_.empty(); }

  /// Host memory for as many more retired pages. Throws std::bad_alloc.
  void reserve_retired(std::size_t count) { retired_.reserve(retired_.size() + count); }

  /// The page is not used at this address any more, once `used` is complete; at once where that is null. After
  /// reserve_retired().
  void retire(const page& old, std::shared_ptr<event> used) noexcept;

  /// Unmaps what is retired and complete, and returns it. Never waits.
  std::vector<page> reap();

 private:
  struct retired {
    page_mapping mapping;
    page at;
    std::shared_ptr<event> used;
  };

  void drop(page_mapping mapping) noexcept;

  const page_properties properties_;
  const std::optional<std::size_t> maximum_;
  std::shared_ptr<const address_reservation> addresses_;
  mapping_table mappings_;
  std::vector<retired> retired_;
  std::atomic<std::size_t> held_{0};
  std::size_t pages_of_a_pool_ = 1024;
};

}  // namespace cenote::inline v1::pool
