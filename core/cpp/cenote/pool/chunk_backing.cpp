#include "cenote/pool/chunk_backing.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "cenote/driver/after_captures.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/ladder.hpp"

namespace cenote::inline v1::pool {
namespace {

/// A pool that is this many times as large as what is in use reclaims before it grows. Of a recorded workload of five
/// streams it held 4.9 times the peak without, and 2.5 times with it.
constexpr std::size_t plenty = 2;

/// So does one whose front caches hold more than an eighth of it together: streams come and go, and what lies in the
/// caches of one that is gone is nobody's.
constexpr std::size_t shares_worth_a_reclaim = 8;

/// What one front cache may hold: a sixty-fourth of the pool. It is not joined with its neighbours meanwhile, and no
/// other stream sees it.
constexpr std::size_t shares_of_a_cache = 64;

}  // namespace

/// One chunk, or several where one cannot be so large.
void chunk_backing::begin(std::size_t bytes) {
  try {
    for (std::size_t left = bytes; left != 0; left -= std::min(left, max_block_bytes))
      take_first(std::min(left, max_block_bytes));
  } catch (const out_of_memory&) {
    give_back_first();
    if (bytes <= max_block_bytes) throw;
    throw out_of_memory(describe(*upstream()), bytes, upstream()->state());  // of what was asked for, not of a part
  } catch (...) {
    give_back_first();
    throw;
  }
  size_changed();
  say_grown(bytes);
}

void chunk_backing::give_back_first() noexcept {
  const shared_heap::section here(heap_);
  here->for_each_chunk([this](const chunk& c) { upstream()->deallocate_sync(c.base, c.bytes); });
}

void chunk_backing::take_first(std::size_t bytes) {
  const chunk whole = chunks_.take_exactly(bytes);
  try {
    const shared_heap::section here(heap_);
    here->add_chunk(whole, std::nullopt);
  } catch (...) {
    upstream()->deallocate_sync(whole.base, whole.bytes);
    throw;
  }
}

void* chunk_backing::bring(request& wanted) {
  if (has_plenty(wanted) || heap_.caches().bytes() > held() / shares_worth_a_reclaim) {
    if (void* p = heap_.reclaim(wanted)) return p;
  }
  if (void* p = grow(wanted)) return p;
  if (void* p = heap_.reclaim(wanted)) return p;
  ladder::note("blocks of other streams", std::nullopt, wanted.may_wait ? "" : "skipped: the stream is being captured");
  return make_room_and_grow(wanted);
}

/// A chunk of this size holds the wanted bytes at their alignment, wherever it starts.
std::size_t chunk_backing::smallest_chunk(const request& wanted) {
  return align_up(wanted.bytes + (wanted.alignment - block_granularity), block_granularity);
}

void* chunk_backing::grow(request& wanted) {
  if (smallest_chunk(wanted) > max_block_bytes) return nullptr;
  const auto fresh = chunks_.take(wanted.stream, wanted.may_wait, smallest_chunk(wanted), wanted.refusal);
  if (!fresh) return nullptr;
  say_grown(fresh->bytes);
  return add_and_take(wanted, *fresh);
}

/// Whether most of the pool would stay free.
bool chunk_backing::has_plenty(const request& wanted) const {
  const shared_heap::section here(heap_);
  return here->bytes_in_use() + wanted.bytes <= held() / plenty;
}

/// Free chunks that are each too small are worth one that is large enough.
void* chunk_backing::make_room_and_grow(request& wanted) {
  if (smallest_chunk(wanted) > std::min(maximum().value_or(max_block_bytes), max_block_bytes))
    return nullptr;  // no room that could be made is enough
  // A captured stream cannot free, and the legacy stream may not even be named beside the capture of a blocking one.
  std::optional<cuda_stream> aside;
  if (!wanted.may_wait) aside.emplace(device(), cuda_stream::kind::non_blocking);
  const stream_ref stream = aside ? aside->view() : wanted.stream;
  std::size_t released = release(stream, std::nullopt, 0);
  if (aside) {
    synchronize(stream, device());
  } else {
    released += release(stream, wanted.id, 0);
  }
  ladder::note("free chunks given back", released);
  return released == 0 ? nullptr : grow(wanted);
}

void* chunk_backing::add_and_take(const request& wanted, chunk fresh) {
  // From a stream-ordered upstream the memory is this stream's for the time being; from another it is everybody's.
  const bool is_mine = upstream()->is_stream_ordered() && wanted.may_wait;
  const auto owner = is_mine ? std::optional(wanted.id) : std::nullopt;
  try {
    const shared_heap::section here(heap_);
    here->add_chunk(fresh, owner);
    size_changed();
    return here->take_fresh(wanted, owner);
  } catch (...) {
    give_up(wanted, fresh);
    throw;
  }
}

/// Gives a chunk back of which no books could be kept. Nobody has used it.
void chunk_backing::give_up(const request& wanted, chunk fresh) noexcept {
  {
    const shared_heap::section here(heap_);
    if (here->has_chunk(fresh)) return;  // it was added, and only the block was not taken
  }
  if (wanted.may_wait) return chunks_.give(wanted.stream, fresh);
  try {
    const cuda_stream aside(device(), cuda_stream::kind::non_blocking);  // a captured stream cannot free
    chunks_.give(aside.view(), fresh);
  } catch (const std::exception& error) {
    report_once("a chunk of a pool is leaked, as giving it back failed: ", error.what());
  }
}

/// Gives chunks of the stream `of`, or ready ones, back in the order of `stream`.
std::size_t chunk_backing::release(stream_ref stream, std::optional<stream_id> of, std::size_t keep_bytes) {
  std::vector<chunk> released;
  std::size_t bytes = 0;
  {
    const shared_heap::section here(heap_);
    const auto exceeds_what_is_kept = [&, held = chunks_.held()](const chunk& c) {
      if (held - bytes - c.bytes < keep_bytes) return false;
      bytes += c.bytes;
      return true;
    };
    released = here->remove_free_chunks(of, exceeds_what_is_kept);
  }
  for (const chunk& c : released) chunks_.give(stream, c);
  size_changed();
  say_given_back(bytes);
  return bytes;
}

/// For the end of the pool. False if there is a capture, which nobody had announced; throws if there is no way: its
/// memory must then be leaked.
bool chunk_backing::order_legacy_stream_after_all_work(int device) {
  try {
    wait_for_all_work({}, device);
    return true;
  } catch (const cuda_error& error) {
    if (!has_ended_a_capture(error)) {
      synchronize_device(device);
      return true;
    }
    report_once(error.what());
    return false;
  } catch (const std::bad_alloc&) {  // of the host's memory, for an event
    synchronize_device(device);
    return true;
  }
}

std::size_t chunk_backing::give_back(std::size_t keep_bytes) {
  return release(unnamed_stream(device()).view(), std::nullopt, keep_bytes);
}

void chunk_backing::end() {
  if (is_known_to_be_without_captures()) {
    do_what_was_put_off(device());
    if (order_legacy_stream_after_all_work(device())) {  // which needs no memory of the host
      const shared_heap::section here(heap_);
      return here->for_each_chunk([this](const chunk& c) { chunks_.give({}, c); });
    }
  }
  std::vector<chunk> chunks;
  {
    const shared_heap::section here(heap_);
    here->for_each_chunk([&](const chunk& c) { chunks.push_back(c); });
  }
  do_after_captures(device(), [upstream = upstream(), chunks = std::move(chunks)] {
    if (!order_legacy_stream_after_all_work(upstream->device())) return false;
    for (const chunk& c : chunks) upstream->deallocate({}, c.base, c.bytes);
    return true;
  });
}

void chunk_backing::check() const {
  const std::size_t before = held();  // chunks may go back meanwhile: first from the heap
  require_bounds(before, heap_.look([](const stream_ordered_heap& heap) {
    heap.check();
    return heap.chunk_bytes();
  }));
}

void chunk_backing::size_changed() { heap_.be_of(held() / shares_of_a_cache, false); }

}  // namespace cenote::inline v1::pool
