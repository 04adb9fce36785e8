// A reserved range of addresses with pages under some of them: the memory of a pool that maps it itself.
//
//     addresses   │ in use │ free A │  unmapped  │ free A │ in use │    unmapped …        (blocks of one block_heap)
//     pages       [  p1  ][  p2   ]              [  p3   ][  p4  ]
//                          └──────── a run ────────┘
//
// How it works
//   1. The whole range is one chunk of the heap. A free block without pages belongs to an owner of its own, `unmapped`,
//      so that what other owners have free is always mapped.
//   2. A request that no free block serves gets a run: free blocks that adjoin, some of them unmapped, which the
//      stream may use. Of the runs that are looked at, and of both ends of each, that is taken which needs the fewest
//      new bytes under it; then the one that leaves the smallest rest.
//   3. plan() reserves the run and says which pages come under its gaps: new ones, or pages that are wholly free
//      elsewhere. The pool makes the driver's calls, which others need not wait for; then complete() or cancel().
//   4. A page that moves is mapped at its new place at once. Its old addresses are in limbo, which is nobody's, until
//      the work that used them is done and they are unmapped: was_unmapped().
//   5. A pinned page neither moves, nor is it broken or taken out. Blocks in it are taken and freed as ever.
//   6. A gap is filled cell by cell, from the largest page size down: a page of n bytes lies at a multiple of n.
//
// Invariants: those of page_map; besides, while no plan is open,
//   I1  a block lies over addresses without a page if and only if it is free, and its owner is `unmapped` or `limbo`
//   I2  nothing is reserved
//
// Threads: none of its own; the pool locks, and has at most one plan open. Cost: plan() looks at `most_seeds` runs, and
// at the free blocks that hold a whole page. Host memory: that of the heap and a byte for each 2 MiB.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "cenote/structures/block_heap.hpp"
#include "cenote/structures/page_map.hpp"

namespace cenote::inline v1 {

class paged_range {
 public:
  /// Which bytes are wanted by whom, and where pages for them may come from.
  struct request {
    std::size_t bytes;  // a multiple of 256
    std::size_t alignment;
    owner_index own;                      // whose free blocks, and those of `ready`, it may use
    std::size_t may_create;               // so many bytes of new pages
    std::size_t page_bytes;               // of that size, or smaller
    bool may_move_ready = false;          // wholly free pages of `ready`
    bool may_move_own = false;            // and of `own`
    bool is_tight = false;                // touch as few pages as possible, rather than bring as few
    bool uses_ready = true;               // free blocks of `ready`, beside those of `own`
    bool may_break = false;               // release a page that is too large, and make smaller ones of it
    std::optional<owner_index> keeper{};  // these three: as in block_heap::take
    std::size_t taker = 0;
    std::uint8_t unasked = 0;
  };

  /// A page that comes under the run: from another place, or a new one where `from` is null.
  struct filling {
    page to;
    std::byte* from = nullptr;
  };

  /// A run that is reserved, and what is to be done for it.
  struct plan {
    block_index block;
    std::vector<filling> fillings;
    std::vector<page> broken;  // pages in limbo whose memory is to be released before new ones are made
    bool moves_own = false;    // a page of `own` moves: what was queued for it may still run

   private:
    friend class paged_range;
    struct piece {
      std::byte* start;
      std::size_t bytes;
      owner_index owner;
      stamp freed_at;
    };
    std::vector<piece> pieces_;             // of the run and of what lies beside it, as they were
    std::vector<piece> in_limbo_;           // the old places of pages that move, as they were
    std::vector<block_index> kept_places_;  // of the block table, so that cancel() needs no memory
  };

  /// `base` is a multiple of page_map::max_page_bytes. Throws as block_heap::add_chunk does.
  paged_range(block_heap& heap, owner_index ready, std::byte* base, std::size_t bytes);

  const page_map& pages() const noexcept { return pages_; }

  /// Reserves a run; nothing where there is none, or no pages for it. Nothing has changed if it throws std::bad_alloc.
  std::optional<plan> make_plan(const request& wanted);

  /// The pages are mapped. The block is in use from now on; what they have beyond it is free, `owner`'s, freed at
  /// `freed_at`.
  void complete(const plan& done, owner_index owner, stamp freed_at) noexcept;

  /// The pages could not be mapped: all is as before, but what was broken, which stays in limbo.
  void cancel(const plan& failed) noexcept;

  /// Takes wholly free pages of `owner` out, at most `bytes`: they are in limbo from now on.
  std::vector<page> take_out(owner_index owner, std::size_t bytes);

  /// A page in limbo is unmapped: its addresses may have another page, unless the host has no memory to say so.
  void was_unmapped(const page& gone) noexcept;

  /// Pins the pages under the bytes, or takes a pin back; all of them are mapped.
  void pin(const std::byte* address, std::size_t bytes) noexcept { pages_.pin(address, bytes); }
  void unpin(const std::byte* address, std::size_t bytes) noexcept { pages_.unpin(address, bytes); }

  /// One page lies where several lay, which tile it; it lies at a multiple of its size.
  void merge(const page& whole) noexcept;

  /// Whether all the bytes have pages: those of a block that is in use, unless its plan is still open.
  bool is_mapped(const std::byte* address, std::size_t bytes) const noexcept;

  /// Whether all the bytes lie in pinned pages.
  bool is_pinned(const std::byte* address, std::size_t bytes) const noexcept;

  std::size_t unmapped_bytes() const noexcept;

  /// Whether a block is addresses without a page.
  bool is_unmapped(const block& b) const noexcept { return b.is_free && (b.owner == unmapped_ || b.owner == limbo_); }

  /// Throws std::logic_error naming the invariant that does not hold. O(blocks). With no plan open.
  void check() const;

 private:
  static constexpr std::size_t most_seeds = 256;
  static constexpr std::size_t most_neighbours = 64;
  static constexpr std::size_t size_classes = 5;  // 2, 4, 8, 16 and 32 MiB
  static_assert(page_map::slot_bytes << (size_classes - 1) == page_map::max_page_bytes);

  /// Where a run begins, in which block.
  struct place {
    block_index first;
    std::byte* start;
    std::size_t cost;
    std::size_t rest;
  };

  /// A page that could move, and the block that it lies in.
  struct spare {
    page whole;
    block_index block;
  };

  class filler;

  bool is_reserved(block_index index) const noexcept {
    return index != no_block && heap_[index].is_free && heap_[index].owner == reserved_;
  }
  bool may_use(const block& b, const request& wanted) const noexcept {
    return b.is_free && (b.owner == wanted.own || (wanted.uses_ready && b.owner == ready_) || b.owner == unmapped_);
  }
  std::optional<place> choose(const request& wanted) const;
  void consider(block_index seed, const request& wanted, std::optional<place>& best) const;
  page page_or_slot(const std::byte* address) const noexcept;
  std::size_t touched(const std::byte* begin, const std::byte* end, const std::byte* start, std::size_t bytes) const;
  std::size_t gap_bytes(block_index first, const std::byte* start, const std::byte* end) const noexcept;
  void reserve(const request& wanted, const place& where, plan& made);
  void keep_places(plan& made, std::size_t count);
  void use_places(const plan& made) noexcept;
  std::vector<page> claims_of(const plan& made) const;
  std::vector<spare> spares_for(const request& wanted) const;
  std::vector<spare> wholly_free(owner_index owner, std::size_t bytes) const;
  void send_to_limbo(std::vector<spare> leaving, std::vector<plan::piece>* as_they_were);
  void give_back_unfilled(plan& made);
  block_index find_free(owner_index owner, const std::byte* address) const noexcept;

  block_heap& heap_;
  page_map pages_;
  std::byte* end_;
  const owner_index ready_;
  const owner_index unmapped_;  // addresses that have no page
  const owner_index limbo_;     // addresses of pages that moved, which are still mapped there
  const owner_index reserved_;  // the run of the open plan
};

}  // namespace cenote::inline v1
