#include "cenote/pool/engine.hpp"

#include <mutex>
#include <tuple>
#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/own_streams.hpp"
#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/ladder.hpp"
#include "cenote/ground/log.hpp"

namespace cenote::inline v1::pool {
namespace {

constexpr stream_id orphans = shared_heap::orphans;

/// Returns how many bytes of a block for this request were not asked for.
std::uint8_t unasked_of(std::size_t bytes) noexcept {
  static_assert(block_granularity == 256, "a block has a byte for it");
  return static_cast<std::uint8_t>((std::size_t{0} - bytes) % block_granularity);
}

CENOTE_COLD void report_nobody(const std::exception& error) noexcept {
  report_once(shared_heap::freed_on_nobodys_stream, error.what());
}

}  // namespace

engine::engine(int device, const std::function<std::unique_ptr<backing>(shared_heap&)>& make_backing)
    : device_(device),
      heap_(device),
      caches_(heap_.caches()),
      memory_(make_backing(heap_)),
      trimmer_(heap_, *memory_),
      is_over_pages_(heap_.look([](const stream_ordered_heap& heap) { return heap.is_range(); })) {}

CENOTE_HOT void* engine::allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const stream_id id = identify(stream, device_);
  caches_.meet(stream, id);
  if (alignment == default_alignment) {
    if (void* const kept = take_from_caches(id, bytes)) return kept;
  }
  return allocate_from_heap(stream, id, bytes, alignment);
}

/// A block that this thread has just freed on the stream, or the one set aside; null if neither has that size.
[[gnu::always_inline]] inline void* engine::take_from_caches(stream_id id, std::size_t bytes) noexcept {
  const std::size_t rounded = align_up(bytes, block_granularity);
  return caches_.keeps(rounded) ? caches_.take(id, rounded, unasked_of(bytes))
                                : caches_.take_back(id, rounded, unasked_of(bytes));
}

CENOTE_HOT void* engine::allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  if (alignment != default_alignment || !caches_.may_keep(bytes)) return nullptr;
  const stream_id id = identify(stream, device_);
  caches_.meet(stream, id);
  return take_from_caches(id, bytes);
}

CENOTE_HOT bool engine::deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes) {
  if (!caches_.may_keep(bytes)) return false;
  const stream_id id = recognise(stream);
  const std::size_t asked = caches_.keeps(bytes) ? caches_.give(id, pointer, nullptr) : caches_.set_aside(id, pointer);
  if (asked == 0) return false;
  compare_sizes(pointer, bytes, asked);
  return true;
}

/// A block is freed with the size that it has, whatever size its free says.
CENOTE_COLD void engine::correct_size(const void* pointer, std::size_t said, std::size_t asked) noexcept {
  free_correction::say(pointer, asked);
  if (has_compared_in_vain_.exchange(true, std::memory_order_relaxed)) return;
  report_once("a block of ", asked, " bytes was freed as one of ", said, ": the former are freed");
}

/// Returns who the stream is, or, where that would have to be asked, who it was when this thread met it: it may be
/// gone, and its handle another's (front_caches::recognise).
[[gnu::always_inline]] inline stream_id engine::recognise(stream_ref stream) const {
  return stream.is_legacy_default() ? legacy_default_id : recognise_by_handle(stream);
}

CENOTE_HOT stream_id engine::recognise_by_handle(stream_ref stream) const {
  const auto own = own_streams::find(stream.value());
  const auto last = own ? std::optional(stream_id{*own}) : caches_.recognise(stream);
  if (last && !is_capturing(stream, device_)) return *last;
  return identify_freeing(stream);
}

/// Who frees. A free in a capture that was invalidated is nobody's: no graph will use the block, and all work of the
/// device before it covers it.
CENOTE_HOT stream_id engine::identify_freeing(stream_ref stream) const {
  const stream_id id = identify(stream, device_);
  return id.is_nobody() ? orphans : id;
}

void* engine::allocate_from_heap(stream_ref stream, stream_id id, std::size_t bytes, std::size_t alignment) {
  void* const pointer = take_from_heap({stream, id, align_up(bytes, block_granularity), alignment, unasked_of(bytes)});
  if (is_over_pages_) trimmer_.finish(stream, id);
  return pointer;
}

void* engine::take_from_heap(request wanted) {
  if (wanted.id.is_nobody()) wanted.id.value = stream_id::first_nobody;  // the heap knows one for each handle
  bool may_borrow = !is_over_pages_ || heap_.is_tight();
  if (heap_.is_tight()) {
    memory_->prepare(wanted);
    may_borrow = may_borrow && !wanted.is_planned;
  }
  may_borrow = may_borrow && !wanted.id.is_capturing();
  void* found = heap_.take_or_borrow(wanted, may_borrow);
  if (wanted.is_scattered) [[unlikely]] {
    memory_->make_whole(wanted);
    wanted.held = 0;
    found = heap_.take_or_borrow(wanted, may_borrow);
  }
  if (found != nullptr) return found;

  const ladder::climb climbing;
  const relaxed_capture_scope relaxed;
  const within_capture_scope within(wanted.id.is_capturing());
  heap_.end_captures();
  if (void* p = heap_.take_settled(wanted)) return p;
  const std::lock_guard one_at_a_time(memory_->growth());
  trimmer_.finish(wanted.stream, wanted.id);
  wanted.is_thorough = true;
  if (void* p = heap_.take(wanted)) return p;  // another thread may have brought memory for both
  void* const brought = memory_->bring(wanted);
  const bool could_help = wanted.bytes <= memory_->maximum().value_or(max_allocation);
  if (brought != nullptr || !could_help) ladder::forget();
  if (brought != nullptr) return brought;
  if (wanted.refusal) std::rethrow_exception(wanted.refusal);  // it knows more than that there is no memory
  return nullptr;
}

CENOTE_HOT void engine::deallocate(stream_ref stream, void* pointer, std::size_t bytes) {
  const bool is_small = caches_.keeps(bytes);
  if (!is_small && !caches_.last().is_allowed()) {
    return give_to_heap(stream, identify_or_report(stream), pointer, bytes);
  }
  const stream_id recognised = recognise_or_report(stream);
  block_index spilled = no_block;
  const std::size_t asked =
      is_small ? caches_.give(recognised, pointer, &spilled) : caches_.set_aside(recognised, pointer);
  if (asked == 0) return give_to_heap(stream, identify_recognised(stream, recognised), pointer, bytes);
  compare_sizes(pointer, bytes, asked);
  if (spilled != no_block) [[unlikely]]
    give_spilled(stream, recognised, spilled);
}

// Returned, not assigned inside a try: where the right side throws, g++ 12.2 at -O1 and -O2 assigns all the same.
CENOTE_HOT stream_id engine::identify_or_report(stream_ref stream) const noexcept {
  try {
    return identify_freeing(stream);
  } catch (const std::exception& error) {
    report_nobody(error);
    return orphans;
  }
}

/// Asks the driver who a stream is that was only recognised: neither asked already, nor made by cenote.
stream_id engine::identify_recognised(stream_ref stream, stream_id recognised) const noexcept {
  const bool is_sure = caches_.recognise(stream) != recognised || own_streams::find(stream.value());
  return is_sure ? recognised : identify_or_report(stream);
}

[[gnu::always_inline]] inline stream_id engine::recognise_or_report(stream_ref stream) const noexcept {
  try {
    return recognise(stream);
  } catch (const std::exception& error) {
    report_nobody(error);
    return orphans;
  }
}

void engine::give_to_heap(stream_ref stream, stream_id id, void* pointer, std::size_t said) noexcept {
  try {
    std::optional<stream_ordered_heap::freed_block> freed;
    {
      shared_heap::section here(heap_);
      std::tie(stream, id) = heap_.meet_freeing(stream, id, here);
      freed = here->free(id, pointer);
    }
    if (!freed) {
      free_correction::say(pointer, 0);
      return report_once(
          "a pointer was freed that the pool did not give out, or that was freed already; it is ignored");
    }
    compare_sizes(pointer, said, freed->asked_bytes);
    if (id != orphans && caches_.may_keep(freed->bytes)) caches_.open(id);
    if (freed->due) heap_.place_mark(stream, id, *std::move(freed->due));
    if (is_over_pages_) trimmer_.finish(stream, id);
    if (!id.is_capturing()) heap_.end_captures();
  } catch (const std::exception& error) {
    free_correction::say(pointer, 0);
    report_once("a block is leaked, as freeing it failed: ", error.what());
  }
}

/// Frees what a cache had no room for. The stream of the cache may only have been recognised; one that is gone gets no
/// mark, as no event on the stream that has its handle now would cover its work, and is not taken for that one again.
void engine::give_spilled(stream_ref stream, stream_id recognised, block_index spilled) noexcept {
  const stream_id asked = identify_recognised(stream, recognised);
  const bool is_itself = asked == recognised;
  if (!is_itself) caches_.meet(stream, asked);
  try {
    std::optional<shared_heap::due_mark> due;
    {
      const shared_heap::section here(heap_);
      due = here->free_spilled(recognised, spilled, is_itself);
    }
    if (due) heap_.place_mark(stream, recognised, *std::move(due));
  } catch (const std::exception& error) {
    report_once("blocks are leaked, as freeing them failed: ", error.what());
  }
}

}  // namespace cenote::inline v1::pool
