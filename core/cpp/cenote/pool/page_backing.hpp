// Pages of virtual memory under a pool: one range of addresses, and pages that are mapped under blocks as they are
// needed. It holds nothing before it is used.
//
// How it works. bring() takes, in this order:
//
//   1. new pages, as long as no more than a tenth above the most that was in use is held, or a thirty-third where it
//      is sparing (no wait, no move)
//   2. what has become ready on any stream; a block of another stream, for which the device waits
//   3. pages that are wholly free on this stream or ready, brought to where they are needed; then those of all streams,
//      for which the device waits
//   4. new pages up to the maximum, for which other pools of the device give back what lies idle in them (page_pools)
//   5. after the host has waited for all work, free pages wherever they lie, large ones exchanged for small ones
//
// A page that moves is mapped at its new address at once, and unmapped at the old one by a later call, once the work
// that used it there is done. Near the maximum (is_tight), blocks of a page and more are placed where they touch the
// fewest pages, caches are smaller, and where nothing is in use the pages are brought together (make_whole).
//
// A pool that is paused has no pages (page_pause): it gives and takes none before it is resumed.
//
// Invariants: those of backing, of mapped_pages and of the heap's paged_range.
//
// Threads: any, under growth(). Cost: the driver's, some 60 us a page (mapped_pages).
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cenote/pool/backing.hpp"
#include "cenote/pool/mapped_pages.hpp"
#include "cenote/pool/page_pause.hpp"
#include "cenote/pool/page_pools.hpp"

namespace cenote::inline v1::pool {

class page_backing final : public backing {
 public:
  /// Makes the heap a range. A sparing one holds less beyond what is in use. Throws as mapped_pages does.
  page_backing(shared_heap& heap, std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> maximum,
               const page_properties& properties, const peer_devices& peers, bool is_sparing);

  std::size_t held() const override { return pages_->held(); }
  void begin(std::size_t bytes) override;
  void prepare(request& wanted) const override;
  void make_whole(const request& wanted) override;
  void* bring(request& wanted) override;
  std::size_t give_back(std::size_t keep_bytes) override;
  void end() override;
  void check() const override;

  /// Gives all pages back to the device; what they hold is kept as `keep` says (parking.hpp). Waits, on the host, for
  /// all work that may use them. std::runtime_error, with nothing changed, if the pool is paused already, if others
  /// know its memory, or while something is being captured; what page_pause throws. Returns the bytes.
  std::size_t pause(const std::string& keep);

  /// The two halves of it, for several pools that are paused together. hide() unmaps the pages and keeps their memory:
  /// until release() lets it go, resume() takes the pause back, with all contents. growth() is held from the first to
  /// the second. Each returns the bytes that were given back by it.
  std::size_t hide(const std::string& keep);
  std::size_t release() noexcept;

  /// Copies what the paused pool held to the host; false where it is not paused, or some of the bytes are not kept.
  bool read_paused(void* to, const void* from, std::size_t bytes);

  /// Brings the pages back to the same addresses. std::runtime_error, with nothing changed, if the pool is not paused;
  /// out_of_memory, and it is paused as before, where the device has not enough. Returns the bytes.
  std::size_t resume();

  const page_pause& pausing() const noexcept { return pause_; }

  /// Makes pages larger from now on.
  void expect_pauses() {
    const std::lock_guard one_at_a_time(growth());
    pages_->expect_pauses();
  }

 private:
  /// What pages may be brought for a request, besides new ones up to a bound.
  struct means {
    bool may_move = false;
    bool may_break = false;
  };

  std::size_t bound(const request& wanted);
  void* bring_pages(const request& wanted, std::size_t bound, means by);
  void* bring_of_others(const request& wanted, means by);
  void* map_planned(const request& wanted, const paged_range::plan& planned);
  bool map_all(const paged_range::plan& planned, stream_ref stream);
  void* wait_and_break(request& wanted);
  void require_running() const;
  void require_unknown_to_others();
  void wait_for_all_devices();
  void reap();
  void size_changed();

  const bool is_sparing_;
  std::unique_ptr<mapped_pages> pages_;  // guarded by growth(), but for its sizes
  page_pause pause_;                     // guarded by growth(), but for what it says of itself
  std::size_t peak_ = 0;                 // of the bytes in use, where pages were wanted; guarded by growth()
  std::optional<page_pools::place> place_;
};

}  // namespace cenote::inline v1::pool
