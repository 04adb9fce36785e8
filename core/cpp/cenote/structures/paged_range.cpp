#include "cenote/structures/paged_range.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <stdexcept>

namespace cenote::inline v1 {
namespace {

std::byte* end_of(const page& p) { return p.address + p.bytes; }

template <class Align>
std::byte* align_address(std::byte* address, Align&& align, std::size_t alignment) {
  return reinterpret_cast<std::byte*>(align(reinterpret_cast<std::uintptr_t>(address), alignment));
}

std::size_t bytes_between(const std::byte* from, const std::byte* to) { return static_cast<std::size_t>(to - from); }

}  // namespace

/// Fills gaps with pages: of those that may move, the ones from small free blocks first, so that large ones stay whole.
class paged_range::filler {
 public:
  filler(const page_map& pages, const request& wanted, std::vector<spare> spares)
      : base_(pages.base()), wanted_(wanted), all_(std::move(spares)) {}

  /// Whether there are enough. A page that is mostly not needed is brought only where no smaller one is to be had,
  /// unless all pages are new: those are of the pool's size.
  bool fill(const std::vector<page>& claims, const page& needed) {
    const bool may_move = wanted_.may_move_ready || wanted_.may_move_own;
    return (may_move && fill_all(claims, needed, false)) || fill_all(claims, needed, true);
  }

  std::vector<filling> fillings;
  std::vector<spare> moved;
  std::vector<spare> broken;

 private:
  bool fill_all(const std::vector<page>& claims, const page& needed, bool is_loose) {
    fillings.clear();
    moved.clear();
    broken.clear();
    may_create_ = wanted_.may_create;
    is_loose_ = is_loose;
    for (auto& each : by_size_) each.clear();
    for (auto at = all_.rbegin(); at != all_.rend(); ++at) by_size_[class_of(at->whole.bytes)].push_back(*at);

    constexpr std::size_t largest = page_map::max_page_bytes;
    for (const page& claim : claims) {
      claim_ = claim;
      need_ = {std::max(claim.address, needed.address), 0};
      need_.bytes = bytes_between(need_.address, std::min(end_of(claim), end_of(needed)));
      const std::size_t first = align_down(bytes_between(base_, claim.address), largest);
      for (std::byte* cell = base_ + first; cell < end_of(claim); cell += largest) {
        if (!fill_cell(cell, largest)) return false;
      }
    }
    return true;
  }

  bool fill_cell(std::byte* cell, std::size_t bytes) {
    const std::byte* const from = std::max(cell, need_.address);
    const std::byte* const to = std::min(cell + bytes, end_of(need_));
    if (from >= to) return true;
    const bool is_claimed = cell >= claim_.address && cell + bytes <= end_of(claim_);
    const bool is_smallest = bytes == page_map::slot_bytes;
    if (is_claimed && (is_loose_ || is_smallest || bytes_between(from, to) > bytes / 2) && bring({cell, bytes}))
      return true;
    if (is_smallest) return break_one() && bring({cell, bytes});
    return fill_cell(cell, bytes / 2) && fill_cell(cell + bytes / 2, bytes / 2);
  }

  bool bring(const page& to) {
    if (to.bytes <= wanted_.page_bytes && to.bytes <= may_create_) {
      may_create_ -= to.bytes;
      fillings.push_back({to});
      return true;
    }
    auto& fitting = by_size_[class_of(to.bytes)];
    if (fitting.empty()) return false;
    moved.push_back(fitting.back());
    fillings.push_back({to, fitting.back().whole.address});
    fitting.pop_back();
    return true;
  }

  bool break_one() {
    if (!wanted_.may_break) return false;
    const auto larger = std::find_if(by_size_.begin(), by_size_.end(), [](const auto& each) { return !each.empty(); });
    if (larger == by_size_.end()) return false;
    broken.push_back(larger->back());
    may_create_ += larger->back().whole.bytes;
    larger->pop_back();
    return true;
  }

  static std::size_t class_of(std::size_t bytes) {
    return static_cast<std::size_t>(std::countr_zero(bytes / page_map::slot_bytes));
  }

  std::byte* const base_;
  const request& wanted_;
  const std::vector<spare> all_;
  std::array<std::vector<spare>, size_classes> by_size_;  // the next to be used at the back
  std::size_t may_create_ = 0;
  bool is_loose_ = false;
  page claim_{};
  page need_{};
};

paged_range::paged_range(block_heap& heap, owner_index ready, std::byte* base, std::size_t bytes)
    : heap_(heap),
      pages_(base),
      end_(base + bytes),
      ready_(ready),
      unmapped_(heap.create_owner()),
      limbo_(heap.create_owner()),
      reserved_(heap.create_owner()) {
  heap_.add_chunk({base, bytes}, unmapped_, 0);
}

auto paged_range::make_plan(const request& wanted) -> std::optional<plan> {
  const auto where = choose(wanted);
  if (!where) return std::nullopt;
  plan made;
  reserve(wanted, *where, made);
  try {
    filler pages(pages_, wanted, spares_for(wanted));
    if (!pages.fill(claims_of(made), {where->start, wanted.bytes})) {
      cancel(made);
      return std::nullopt;
    }
    made.fillings = std::move(pages.fillings);
    for (const spare& each : pages.broken) made.broken.push_back(each.whole);
    std::vector<spare> leaving = std::move(pages.moved);
    leaving.insert(leaving.end(), pages.broken.begin(), pages.broken.end());
    made.moves_own = std::any_of(leaving.begin(), leaving.end(),
                                 [&](const spare& each) { return heap_[each.block].owner == wanted.own; });
    keep_places(made, 2 * leaving.size());
    send_to_limbo(std::move(leaving), &made.in_limbo_);
    give_back_unfilled(made);
  } catch (...) {
    cancel(made);
    throw;
  }
  const auto is_broken = [&](const plan::piece& each) {
    return std::any_of(made.broken.begin(), made.broken.end(), [&](const page& p) { return p.address == each.start; });
  };
  std::erase_if(made.in_limbo_, is_broken);
  return made;
}

/// Looks at runs around addresses without pages, and around blocks that adjoin those of the other owner.
auto paged_range::choose(const request& wanted) const -> std::optional<place> {
  std::optional<place> best;
  std::size_t seeds = 0;
  heap_.for_each_free(unmapped_, page_map::slot_bytes, [&](block_index seed) {
    consider(seed, wanted, best);
    return ++seeds < most_seeds && !(best && best->cost == 0);
  });
  // Blocks that are mapped, and adjoin blocks of the other owner.
  for (const owner_index owner : {ready_, wanted.own}) {
    if (owner == ready_ && !wanted.uses_ready) continue;
    seeds = 0;
    heap_.for_each_free(owner, page_map::slot_bytes, [&](block_index seed) {
      consider(seed, wanted, best);
      return ++seeds < most_seeds && !(best && best->cost == 0);
    });
  }
  // The rest of the range is the largest of them, and may not have been looked at.
  if (const block_index large = heap_.find(unmapped_, wanted.bytes, wanted.alignment, true); large != no_block) {
    consider(large, wanted, best);
  }
  return best;
}

void paged_range::consider(block_index seed, const request& wanted, std::optional<place>& best) const {
  block_index first = seed;
  for (std::size_t i = 0; i < most_neighbours; ++i) {
    const block_index below = heap_[first].prev;
    if (below == no_block || !may_use(heap_[below], wanted)) break;
    first = below;
  }
  block_index last = seed;
  for (std::size_t i = 0; i < most_neighbours; ++i) {
    const block_index above = heap_[last].next;
    if (above == no_block || !may_use(heap_[above], wanted)) break;
    last = above;
  }
  std::byte* const begin = heap_[first].address;
  std::byte* const end = heap_.end_of(last);
  std::byte* const low = align_address(begin, align_up, wanted.alignment);
  if (low + wanted.bytes > end || low + wanted.bytes < low) return;
  std::byte* const high = align_address(end - wanted.bytes, align_down, wanted.alignment);
  const std::size_t rest = bytes_between(begin, end) - wanted.bytes;
  for (std::byte* const start : {low, high}) {
    block_index at = first;
    while (heap_.end_of(at) <= start) at = heap_[at].next;
    const std::size_t cost =
        wanted.is_tight ? touched(begin, end, start, wanted.bytes) : gap_bytes(at, start, start + wanted.bytes);
    if (!best || cost < best->cost || (cost == best->cost && rest < best->rest)) best = {at, start, cost, rest};
  }
}

/// The page that `address` lies in, or, where it has none, one of the smallest size.
page paged_range::page_or_slot(const std::byte* address) const noexcept {
  page here = pages_.page_at(address);
  here.bytes = std::max(here.bytes, page_map::slot_bytes);
  return here;
}

/// Bytes of the pages that a block from `start` on lies over, but for pages that lie partly beside the free run.
std::size_t paged_range::touched(const std::byte* begin, const std::byte* end, const std::byte* start,
                                 std::size_t bytes) const {
  const page lowest = page_or_slot(start);
  const page highest = page_or_slot(start + bytes - 1);
  const std::byte* const low = lowest.address >= begin ? lowest.address : end_of(lowest);
  const std::byte* const high = end_of(highest) <= end ? end_of(highest) : highest.address;
  return high > low ? bytes_between(low, high) : 0;
}

/// The bytes without a page from `start`, in the block `first`, to `end`, in whole slots.
std::size_t paged_range::gap_bytes(block_index first, const std::byte* start, const std::byte* end) const noexcept {
  std::size_t bytes = 0;
  for (block_index i = first; i != no_block && heap_[i].address < end; i = heap_[i].next) {
    if (heap_[i].owner != unmapped_) continue;
    const std::size_t from = bytes_between(pages_.base(), std::max<const std::byte*>(heap_[i].address, start));
    const std::size_t to = bytes_between(pages_.base(), std::min<const std::byte*>(heap_.end_of(i), end));
    bytes += align_up(to, page_map::slot_bytes) - align_down(from, page_map::slot_bytes);
  }
  return bytes;
}

/// Takes the run, and beside its gaps as much as a page that covers them might need.
void paged_range::reserve(const request& wanted, const place& where, plan& made) {
  std::byte* const end = where.start + wanted.bytes;
  std::byte* const base = pages_.base();
  constexpr std::size_t largest = page_map::max_page_bytes;
  std::vector<block_index> blocks;
  for (block_index i = where.first; i != no_block && heap_[i].address < end; i = heap_[i].next) {
    const block& b = heap_[i];
    std::byte* from = std::max(b.address, where.start);
    std::byte* to = std::min(heap_.end_of(i), end);
    if (b.owner == unmapped_) {
      from = std::max(b.address, base + align_down(bytes_between(base, from), largest));
      to = std::min(heap_.end_of(i), base + align_up(bytes_between(base, to), largest));
    }
    made.pieces_.push_back({from, bytes_between(from, to), static_cast<owner_index>(b.owner), b.freed_at});
    blocks.push_back(i);
  }
  pages_.reserve_until(made.pieces_.back().start + made.pieces_.back().bytes);
  keep_places(made, made.pieces_.size() + 2);
  heap_.reserve(2 * made.pieces_.size() + 2);  // nothing below throws
  // From below, so that each part joins the one before it, and all are one block in the end.
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    heap_.pass_part(blocks[i], made.pieces_[i].start, made.pieces_[i].bytes, reserved_, 0);
  }
  made.block = heap_.take_part(find_free(reserved_, where.start), where.start, wanted.bytes, wanted.keeper,
                               wanted.taker, wanted.unasked);
}

/// The host's memory for `count` more blocks, which cancel() will need.
void paged_range::keep_places(plan& made, std::size_t count) {
  made.kept_places_.reserve(made.kept_places_.size() + count);
  heap_.reserve(count);
  while (count-- > 0) made.kept_places_.push_back(heap_.blocks().create({}));
}

void paged_range::use_places(const plan& made) noexcept {
  for (const block_index each : made.kept_places_) heap_.blocks().destroy(each);
}

std::vector<page> paged_range::claims_of(const plan& made) const {
  std::vector<page> claims;
  for (const auto& each : made.pieces_) {
    if (each.owner == unmapped_) claims.push_back({each.start, each.bytes});
  }
  return claims;
}

auto paged_range::spares_for(const request& wanted) const -> std::vector<spare> {
  const std::size_t enough = std::max(4 * wanted.bytes, most_seeds * page_map::slot_bytes);
  std::vector<spare> all;
  if (wanted.may_move_ready) all = wholly_free(ready_, enough);
  if (wanted.may_move_own) {
    const auto own = wholly_free(wanted.own, enough);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

/// Pages that are not pinned, of which no byte is in use or another owner's, those in small free blocks first, until
/// `bytes` are found.
auto paged_range::wholly_free(owner_index owner, std::size_t bytes) const -> std::vector<spare> {
  std::vector<spare> found;
  std::size_t found_bytes = 0;
  heap_.for_each_free(owner, page_map::slot_bytes, [&](block_index index) {
    const std::size_t from = align_up(bytes_between(pages_.base(), heap_[index].address), page_map::slot_bytes);
    for (std::byte* at = pages_.base() + from; at < heap_.end_of(index);) {
      const page whole = pages_.page_at(at);
      const bool is_whole = whole.address >= heap_[index].address && end_of(whole) <= heap_.end_of(index);
      if (is_whole && !pages_.is_pinned(whole)) {
        found.push_back({whole, index});
        found_bytes += whole.bytes;
      }
      at = end_of(whole);
    }
    return found_bytes < bytes;
  });
  return found;
}

void paged_range::send_to_limbo(std::vector<spare> leaving, std::vector<plan::piece>* as_they_were) {
  // From above, as a block that is cut keeps its index for what is left below.
  std::sort(leaving.begin(), leaving.end(),
            [](const spare& a, const spare& b) { return a.whole.address > b.whole.address; });
  if (as_they_were != nullptr) as_they_were->reserve(leaving.size());
  heap_.reserve(2 * leaving.size());  // nothing below throws
  for (const auto& [whole, index] : leaving) {
    const block& b = heap_[index];
    if (as_they_were != nullptr) {
      as_they_were->push_back({whole.address, whole.bytes, static_cast<owner_index>(b.owner), b.freed_at});
    }
    heap_.pass_part(index, whole.address, whole.bytes, limbo_, 0);
    pages_.remove(whole);
  }
}

/// Gives back what was reserved beside the run, and no page will cover.
void paged_range::give_back_unfilled(plan& made) {
  const block& run = heap_[made.block];
  std::byte* low = run.address;
  std::byte* high = heap_.end_of(made.block);
  for (const filling& each : made.fillings) {
    low = std::min(low, each.to.address);
    high = std::max(high, end_of(each.to));
  }
  heap_.reserve(2);  // nothing below throws
  if (const block_index below = run.prev; is_reserved(below) && heap_[below].address < low) {
    auto& lowest = made.pieces_.front();
    lowest.bytes -= bytes_between(lowest.start, low);
    lowest.start = low;
    heap_.pass_part(below, heap_[below].address, bytes_between(heap_[below].address, low), unmapped_, 0);
  }
  if (const block_index above = run.next; is_reserved(above) && heap_.end_of(above) > high) {
    auto& highest = made.pieces_.back();
    highest.bytes = bytes_between(highest.start, high);
    heap_.pass_part(above, high, bytes_between(high, heap_.end_of(above)), unmapped_, 0);
  }
}

void paged_range::complete(const plan& done, owner_index owner, stamp freed_at) noexcept {
  use_places(done);
  for (const filling& each : done.fillings) pages_.insert(each.to);
  for (const block_index beside : {heap_[done.block].prev, heap_[done.block].next}) {
    if (is_reserved(beside)) heap_.pass(beside, owner, freed_at);
  }
}

void paged_range::cancel(const plan& failed) noexcept {
  use_places(failed);
  heap_.blocks()[failed.block].is_kept = false;
  heap_.give(failed.block, reserved_, 0);
  // From above, so that what is left below keeps its index.
  for (auto each = failed.pieces_.rbegin(); each != failed.pieces_.rend(); ++each) {
    heap_.pass_part(find_free(reserved_, each->start), each->start, each->bytes, each->owner, each->freed_at);
  }
  for (const auto& each : failed.in_limbo_) {
    heap_.pass_part(find_free(limbo_, each.start), each.start, each.bytes, each.owner, each.freed_at);
    pages_.insert({each.start, each.bytes});
  }
}

std::vector<page> paged_range::take_out(owner_index owner, std::size_t bytes) {
  std::vector<spare> leaving = wholly_free(owner, bytes);
  std::erase_if(leaving, [left = bytes](const spare& each) mutable {
    if (each.whole.bytes > left) return true;
    left -= each.whole.bytes;
    return false;
  });
  std::vector<page> pages;
  for (const spare& each : leaving) pages.push_back(each.whole);
  send_to_limbo(std::move(leaving), nullptr);
  return pages;
}

void paged_range::was_unmapped(const page& gone) noexcept {
  try {
    heap_.pass_part(find_free(limbo_, gone.address), gone.address, gone.bytes, unmapped_, 0);
  } catch (const std::bad_alloc&) {  // of the host's memory: there are addresses enough
  }
}

void paged_range::merge(const page& whole) noexcept {
  for (std::byte *at = whole.address, *const end = at + whole.bytes; at != end;) {
    const page part = pages_.page_at(at);
    pages_.remove(part);
    at += part.bytes;
  }
  pages_.insert(whole);
}

bool paged_range::is_mapped(const std::byte* address, std::size_t bytes) const noexcept {
  for (const std::byte* at = address; at < address + bytes; at = end_of(page_or_slot(at))) {
    if (!pages_.is_mapped(at)) return false;
  }
  return true;
}

bool paged_range::is_pinned(const std::byte* address, std::size_t bytes) const noexcept {
  for (const std::byte* at = address; at < address + bytes;) {
    const page here = pages_.page_at(at);
    if (here.bytes == 0 || !pages_.is_pinned(here)) return false;
    at = end_of(here);
  }
  return true;
}

std::size_t paged_range::unmapped_bytes() const noexcept {
  return heap_.free_bytes(unmapped_) + heap_.free_bytes(limbo_) + heap_.free_bytes(reserved_);
}

/// The free block of `owner` that `address` lies in.
block_index paged_range::find_free(owner_index owner, const std::byte* address) const noexcept {
  block_index found = no_block;
  heap_.for_each_free(owner, 0, [&](block_index i) {
    if (heap_[i].address <= address && address < heap_.end_of(i)) found = i;
    return found == no_block;
  });
  return found;
}

void paged_range::check() const {
  pages_.check();
  if (heap_.free_bytes(reserved_) != 0) throw std::logic_error("paged_range I2: a run is reserved");
  heap_.for_each_block([this](const block& b) {
    if (b.address < pages_.base() || b.address >= end_) return;
    const bool is_without = is_unmapped(b);
    for (std::size_t at = 0; at < b.bytes();) {
      const page here = pages_.page_at(b.address + at);
      if ((here.bytes == 0) != is_without) throw std::logic_error("paged_range I1: a block and its pages disagree");
      if (is_without && b.bytes() > GiB) break;  // the rest of the range
      at = bytes_between(b.address, here.address) + std::max(here.bytes, page_map::slot_bytes);
    }
  });
}

}  // namespace cenote::inline v1
