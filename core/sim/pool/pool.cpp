#include "sim/pool/pool.hpp"

#include <algorithm>
#include <utility>

#include "sim/device/allocation.hpp"
#include "sim/device/device.hpp"
#include "sim/device/work.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/ranges.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/placement.hpp"
#include "sim/pool/pool_place.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

template <class Visit>
void for_each_pool_on(const simulated_device& device, Visit&& visit) {
  live_pools().for_each([&](CUmemoryPool, const std::shared_ptr<simulated_pool>& pool) {
    if (&pool->device == &device && pool->charged()) {
      visit(*pool);
    }
  });
}

std::size_t unused_bytes_of_pools(const simulated_device& device) {
  std::size_t unused = 0;
  for_each_pool_on(device, [&](const simulated_pool& pool) { unused += pool.unused_bytes(); });
  return unused;
}

}  // namespace

simulated_pool::simulated_pool(pool_place place, simulated_device& device, std::size_t max_bytes)
    : place(place), device(device), max_bytes_(max_bytes) {}

simulated_pool::simulated_pool(pool_place place, std::shared_ptr<pool_file> file, std::size_t max_bytes, bool imported)
    : place(place), device(file->device()), max_bytes_(max_bytes), file_(std::move(file)), imported_(imported) {}

simulated_pool::~simulated_pool() { release_segments(0, free_seen::by_driver); }

std::shared_ptr<memory_block> simulated_pool::allocate(std::size_t bytes, simulated_stream& stream) {
  require(!imported_);
  require(bytes <= max_allocation_bytes, CUDA_ERROR_OUT_OF_MEMORY);
  const std::size_t held = round_up(bytes, allocation_step);
  const std::uintptr_t base = find_room(held, stream);
  used_bytes_ += held;
  used_high_ = std::max(used_high_, used_bytes_);
  return live_blocks().insert({.base = base,
                               .bytes = bytes,
                               .held = held,
                               .kind = kind_of_blocks(),
                               .device = &device,
                               .pool = shared_from_this(),
                               .physical = {}});
}

std::uintptr_t simulated_pool::find_room(std::size_t bytes, simulated_stream& stream) {
  if (const auto base = take_parked(bytes, stream.id)) {
    return *base;
  }
  if (const auto base = take_free(bytes)) {
    return *base;
  }
  const std::size_t segment = round_up(bytes, segment_step);
  make_room_to_grow(segment);
  if (!can_grow(segment)) {
    if (const auto base = take_behind_frees(bytes, stream)) {
      return *base;
    }
    fail(CUDA_ERROR_OUT_OF_MEMORY);
  }
  grow(segment);
  return *take_free(bytes);
}

std::optional<std::uintptr_t> simulated_pool::take_free(std::size_t bytes) {
  const auto base = free_.take(bytes);
  if (base) {
    unseen_.remove(*base, bytes);
  }
  return base;
}

/// The smallest piece that fits, of those that this stream has freed.
std::optional<std::uintptr_t> simulated_pool::take_parked(std::size_t bytes, std::uint64_t stream_id) {
  const auto at = parked_by_stream_.lower_bound({stream_id, bytes, 0});
  if (at == parked_by_stream_.end() || std::get<0>(*at) != stream_id) {
    return std::nullopt;
  }
  const std::uintptr_t base = std::get<2>(*at);
  hand_over(base, bytes);
  return base;
}

/// Takes the first `bytes` of the parked pieces and free ranges that lie there one behind the other.
void simulated_pool::hand_over(std::uintptr_t base, std::size_t bytes) {
  const std::uintptr_t end = base + bytes;
  free_.remove(base, bytes);
  unseen_.remove(base, bytes);
  for (auto at = parked_.lower_bound(base); at != parked_.end() && at->first < end; at = parked_.lower_bound(base)) {
    const std::uintptr_t start = at->first;
    parked_piece parked = unpark(start);
    if (start + parked.bytes > end) {
      parked.bytes -= end - start;
      park(end, std::move(parked));
    }
  }
}

/// The lowest run of free and parked memory that is long enough; the stream waits for the frees in it.
std::optional<std::uintptr_t> simulated_pool::take_behind_frees(std::size_t bytes, simulated_stream& stream) {
  if (allow_internal_dependencies_ == 0 || parked_.empty()) {
    return std::nullopt;
  }
  std::map<std::uintptr_t, std::size_t> pieces = free_.all();
  for (const auto& [base, parked] : parked_) {
    if (parked.freed.queue) {
      pieces.emplace(base, parked.bytes);
    }
  }
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  for (const auto& [base, piece_bytes] : pieces) {
    start = base == end ? start : base;
    end = base + piece_bytes;
    if (end - start >= bytes) {
      break;
    }
  }
  if (end - start < bytes) {
    return std::nullopt;
  }
  queue_points frees;
  for (auto at = parked_.lower_bound(start); at != parked_.end() && at->first < start + bytes; ++at) {
    frees.push_back(at->second.freed);
  }
  hand_over(start, bytes);
  stream.submit({.after = std::move(frees), .action = nullptr});
  return start;
}

bool simulated_pool::can_grow(std::size_t segment) const {
  return (max_bytes_ == 0 || reserved_bytes_ + segment <= max_bytes_) && (!charged() || segment <= device.free_bytes());
}

/// Releases segments of this pool, those included whose frees the program has not seen, then of the device's others;
/// none where that would not do.
void simulated_pool::make_room_to_grow(std::size_t segment) {
  if (can_grow(segment)) {
    return;
  }
  const std::size_t own = releasable_bytes(free_seen::by_driver);
  const std::size_t others = unused_bytes_of_pools(device) - (charged() ? releasable_bytes(free_seen::by_program) : 0);
  const bool within_limit = max_bytes_ == 0 || reserved_bytes_ - own + segment <= max_bytes_;
  if (within_limit && (!charged() || segment <= device.free_bytes() + own + others)) {
    release_segments(0, free_seen::by_driver);
    if (charged()) {
      make_room(device, segment);
    }
  }
}

void simulated_pool::grow(std::size_t segment) {
  const auto base = file_ ? addresses().take_untouched(segment, segment_step) : addresses().take(segment, segment_step);
  if (file_) {
    file_->show_segment(base, segment);
  }
  if (charged()) {
    device.charge(segment);
  }
  if (managed()) {
    placements().change(base, segment, [&](page_placement& placement) { placement = {.preferred = place.location}; });
  }
  segments_.emplace(base, segment);
  free_.insert(base, segment);
  reserved_bytes_ += segment;
  reserved_high_ = std::max(reserved_high_, reserved_bytes_);
}

void simulated_pool::park(std::uintptr_t base, parked_piece parked) {
  parked_by_stream_.emplace(parked.stream_id, parked.bytes, base);
  parked_by_ticket_.emplace(parked.ticket, base);
  parked_.emplace(base, std::move(parked));
}

simulated_pool::parked_piece simulated_pool::unpark(std::uintptr_t base) {
  const auto at = parked_.find(base);
  parked_piece parked = std::move(at->second);
  parked_.erase(at);
  parked_by_stream_.erase({parked.stream_id, parked.bytes, base});
  parked_by_ticket_.erase(parked.ticket);
  return parked;
}

void simulated_pool::free_in_order(const std::shared_ptr<memory_block>& block, simulated_stream& stream) {
  used_bytes_ -= block->held;
  if (imported_) {
    stream.submit({.after = {}, .action = [block] {
                     block->state = block_state::dead;
                     block->pool->end_import(*block);
                   }});
    return;
  }
  const std::uint64_t ticket = ++last_ticket_;
  park(block->base, {block->held, stream.id, ticket, {}});
  queue_point freed = stream.submit({.after = {}, .action = [block, ticket] {
                                       block->state = block_state::dead;
                                       addresses().poison_freed(block->base, block->held);
                                       block->pool->settle(ticket);
                                     }});
  const auto at = parked_by_ticket_.find(ticket);
  if (at != parked_by_ticket_.end()) {
    parked_.at(at->second).freed = std::move(freed);
  }
}

/// Some of the piece, or all, may have been handed out meanwhile. What is left stays its stream's own until the program
/// has seen the free, where the pool may not look at the progress of streams.
void simulated_pool::settle(std::uint64_t ticket) {
  const auto at = parked_by_ticket_.find(ticket);
  if (at == parked_by_ticket_.end()) {
    return;
  }
  const std::uintptr_t base = at->second;
  if (allow_opportunistic_ == 0) {
    settled_.push_back(ticket);
  } else {
    const std::size_t bytes = unpark(base).bytes;
    free_.insert(base, bytes);
    unseen_.insert(base, bytes);
  }
  trim_if_closed();
}

void simulated_pool::free(const memory_block& block) {
  used_bytes_ -= block.held;
  if (imported_) {
    end_import(block);
    return;
  }
  addresses().poison_freed(block.base, block.held);
  free_.insert(block.base, block.held);
  trim_if_closed();
}

int simulated_pool::export_pool() const {
  require(file_ && !imported_);
  return file_->new_descriptor();
}

CUmemPoolPtrExportData simulated_pool::export_block(const memory_block& block) const {
  require(file_ && !imported_);
  return file_->export_pointer(block.base, block.bytes);
}

std::shared_ptr<memory_block> simulated_pool::import_block(const CUmemPoolPtrExportData& exported) {
  require(file_ && imported_);
  const auto [base, bytes] = file_->show(exported);
  used_bytes_ += bytes;
  return live_blocks().insert({.base = base,
                               .bytes = bytes,
                               .held = bytes,
                               .kind = kind_of_blocks(),
                               .device = &device,
                               .pool = shared_from_this(),
                               .physical = {}});
}

void simulated_pool::end_import(const memory_block& block) { file_->hide(block.base); }

void simulated_pool::forget_memory() {
  if (file_) {
    file_->hide_all();
  }
  segments_.clear();
  parked_.clear();
  parked_by_stream_.clear();
  parked_by_ticket_.clear();
  settled_.clear();
  free_.clear();
  unseen_.clear();
  access_.clear();
  reserved_bytes_ = reserved_high_ = used_bytes_ = used_high_ = 0;
}

void simulated_pool::synchronised() {
  unseen_.clear();
  for (const std::uint64_t ticket : settled_) {
    const auto at = parked_by_ticket_.find(ticket);
    if (at != parked_by_ticket_.end()) {
      const std::uintptr_t base = at->second;
      free_.insert(base, unpark(base).bytes);
    }
  }
  settled_.clear();
  trim_to(release_threshold);
}

bool simulated_pool::releasable(std::uintptr_t base, std::size_t bytes, free_seen seen) const {
  return free_.contains(base, bytes) && (seen == free_seen::by_driver || !unseen_.touches(base, bytes));
}

std::size_t simulated_pool::unused_bytes() const { return releasable_bytes(free_seen::by_program); }

std::size_t simulated_pool::releasable_bytes(free_seen seen) const {
  std::size_t sum = 0;
  if (free_.empty()) {
    return sum;
  }
  for (const auto& [base, bytes] : segments_) {
    sum += releasable(base, bytes, seen) ? bytes : 0;
  }
  return sum;
}

void simulated_pool::trim_to(std::size_t kept_bytes) { release_segments(kept_bytes, free_seen::by_program); }

void simulated_pool::release_segments(std::size_t kept_bytes, free_seen seen) {
  if (free_.empty()) {
    return;
  }
  for (auto at = segments_.begin(); at != segments_.end();) {
    const auto [base, bytes] = *at;
    if (reserved_bytes_ - bytes >= kept_bytes && releasable(base, bytes, seen)) {
      hand_over(base, bytes);
      release(base, bytes);
      reserved_bytes_ -= bytes;
      at = segments_.erase(at);
    } else {
      ++at;
    }
  }
}

void simulated_pool::release(std::uintptr_t base, std::size_t bytes) {
  if (managed()) {
    placements().forget(base, bytes);
  }
  if (charged()) {
    device.discharge(bytes);
  }
  if (file_) {
    file_->hide_segment(base, bytes);
    addresses().give_back_untouched(base, bytes);
  } else {
    addresses().give_back(base, bytes);
  }
}

block_kind simulated_pool::kind_of_blocks() const {
  if (managed()) {
    return block_kind::pooled_managed;
  }
  return charged() ? block_kind::pooled : block_kind::pooled_pinned;
}

void simulated_pool::close() {
  closed_ = true;
  trim_if_closed();
}

void simulated_pool::trim_if_closed() {
  if (closed_) {
    release_segments(0, free_seen::by_driver);
  }
}

CUresult simulated_pool::get(CUmemPool_attribute attribute, void* value) const {
  const auto answer = [value](auto current) {
    *static_cast<decltype(current)*>(value) = current;
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      return answer(follow_event_dependencies_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      return answer(allow_opportunistic_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return answer(allow_internal_dependencies_);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      return answer(cuuint64_t{release_threshold});
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      return answer(cuuint64_t{reserved_bytes_});
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return answer(cuuint64_t{reserved_high_});
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      return answer(cuuint64_t{used_bytes_});
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return answer(cuuint64_t{used_high_});
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult simulated_pool::set(CUmemPool_attribute attribute, const void* value) {
  const auto flag = [value](int& current) {
    current = *static_cast<const int*>(value) != 0;
    return CUDA_SUCCESS;
  };
  const auto restart_high_mark = [value](std::uint64_t& high, std::uint64_t current) {
    require(*static_cast<const cuuint64_t*>(value) == 0);
    high = current;
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      return flag(follow_event_dependencies_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      return flag(allow_opportunistic_);
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return flag(allow_internal_dependencies_);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      release_threshold = *static_cast<const cuuint64_t*>(value);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return restart_high_mark(reserved_high_, reserved_bytes_);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return restart_high_mark(used_high_, used_bytes_);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUmemAccess_flags simulated_pool::access(const simulated_device& by) const {
  if (managed() || (place.on_device() && &by == &device)) {
    return CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  }
  const auto found = access_.find(by.ordinal);
  return found == access_.end() ? CU_MEM_ACCESS_FLAGS_PROT_NONE : found->second;
}

void simulated_pool::set_access(const simulated_device& by, CUmemAccess_flags flags) {
  if (place.on_device() && &by == &device) {
    require(flags != CU_MEM_ACCESS_FLAGS_PROT_NONE, CUDA_ERROR_INVALID_DEVICE);
    require(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, CUDA_ERROR_NOT_SUPPORTED);
  }
  require(!place.on_device() || &by == &device || reaches(by, device), CUDA_ERROR_INVALID_DEVICE);
  if (flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
    access_.erase(by.ordinal);
  } else {
    access_[by.ordinal] = flags;
  }
}

void make_room(simulated_device& device, std::size_t bytes) {
  if (bytes <= device.free_bytes() || bytes > device.free_bytes() + unused_bytes_of_pools(device)) {
    return;
  }
  for_each_pool_on(device, [&](simulated_pool& pool) {
    if (bytes > device.free_bytes()) {
      pool.trim_to(0);
    }
  });
}

std::shared_ptr<simulated_pool> pool_of(CUmemoryPool handle) {
  return find_live(live_pools(), handle, CUDA_ERROR_INVALID_VALUE);
}

void note_synchronisation() {
  live_pools().for_each([](CUmemoryPool, const std::shared_ptr<simulated_pool>& pool) { pool->synchronised(); });
}

handle_table<CUmemoryPool, simulated_pool>& live_pools() {
  static auto* const pools = new handle_table<CUmemoryPool, simulated_pool>("pool", 0x53);
  return *pools;
}

}  // namespace cenote::sim
