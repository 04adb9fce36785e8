#include "private_pools.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "core.hpp"
#include "lasting_stream.hpp"
#include "sizes.hpp"

namespace cenote::torch {
namespace {

/// Whether this PyTorch says when a capture begins and ends.
template <class Allocator>
constexpr bool marks_captures = requires(Allocator& one) { one.markCaptureBegin(c10::DeviceIndex{}); };

bool is_capturing(cudaStream_t stream) {
  if (stream == nullptr) return false;  // the legacy stream cannot be captured, nor named beside one that is
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

}  // namespace

private_pools::kept_pool* private_pools::find_locked(c10::DeviceIndex device, mempool_id id) const {
  const auto found = pools_.find({device, id});
  return found == pools_.end() ? nullptr : found->second.get();
}

private_pools::kept_pool& private_pools::make_locked(c10::DeviceIndex device, mempool_id id) {
  auto& pool = pools_[{device, id}];
  if (!pool) {
    pool = std::make_unique<kept_pool>();
    pool->device = device;
    pool->id = id;
  }
  return *pool;
}

private_pools::kept_pool& private_pools::owner_locked(const private_pool* blocks, c10::DeviceIndex device) const {
  for (const auto& [its, pool] : pools_) {
    if (its.first == device && &pool->blocks == blocks) return *pool;
  }
  TORCH_INTERNAL_ASSERT(false, "a block names a private pool that is gone");
}

char* private_pools::take_segment(c10::DeviceIndex device, mempool_id id, const segment_source& source,
                                  std::size_t bytes, cudaStream_t stream, const context& stack) {
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
  void* const taken = source.allocator          ? source.allocator->raw_alloc(bytes)
                      : source.pages != nullptr ? core().map_page_set(source.pages, source.offset, bytes)
                                                : core().allocate_sync(client(), device, bytes);
  if (taken == nullptr) return nullptr;
  history_.record_segment({trace_entry::SEGMENT_ALLOC, device, reinterpret_cast<std::size_t>(taken), bytes, stream, id},
                          stack);
  return static_cast<char*>(taken);
}

void private_pools::give_back(const idle_segments& segments) {
  for (const idle_segment& each : segments) {
    history_.record_segment({trace_entry::SEGMENT_FREE, each.device, reinterpret_cast<std::size_t>(each.address),
                             each.what.bytes, each.what.stream, each.id},
                            nullptr);
    if (each.source) {
      each.source->raw_delete(each.address);
    } else if (each.pages != nullptr) {
      core().unmap_page_set(each.pages, each.address);
    } else {
      void* const stream = lasting_stream(each.device);
      core().record_stream(each.address, stream);
      core().deallocate(each.address, stream);
    }
  }
}

bool private_pools::is_pending(const kept_pool& pool, const void* address) {
  return std::any_of(pool.pending.begin(), pool.pending.end(),
                     [=](const pending_free& each) { return each.address == address; });
}

void private_pools::finish_pending_locked(kept_pool& pool) {
  auto& pending = pool.pending;
  for (auto each = pending.begin(); each != pending.end();) {
    if (!each->streams.empty()) {
      ++each;
      continue;  // the capture is still on
    }
    auto& events = each->events;
    c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
    while (!events.empty() && cudaEventQuery(events.back()) == cudaSuccess) {
      (void)cudaEventDestroy(events.back());
      events.pop_back();
    }
    if (!events.empty()) {
      (void)cudaGetLastError();  // "not ready" is no error
      ++each;
      continue;
    }
    pool.blocks.free(each->address);
    each = pending.erase(each);
  }
}

private_pools::idle_segments private_pools::forget_if_done_locked(kept_pool& pool) {
  idle_segments idle;
  if (pool.count != 0) return idle;
  finish_pending_locked(pool);
  pool.blocks.release_idle([&](char* segment, const pool_segment& given) {
    idle.push_back({segment, given, pool.device, pool.id, pool.source, pool.pages});
  });
  if (pool.blocks.is_empty()) pools_.erase({pool.device, pool.id});
  return idle;
}

std::optional<private_pools::block> private_pools::allocate(c10::DeviceIndex device, std::size_t bytes,
                                                            std::size_t requested, cudaStream_t stream,
                                                            std::size_t room, const context& stack) {
  for (;;) {
    mempool_id id;
    segment_source source;
    const std::size_t segment_bytes = private_pool::segment_bytes(bytes);
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::find_if(routes_.rbegin(), routes_.rend(),  // the innermost one first
                                      [&](const route& each) { return each.device == device && each.filter(stream); });
      if (found == routes_.rend()) return std::nullopt;
      if (found->is_announced && !marks_captures<cuda_allocator> && !is_capturing(stream)) {
        found->is_announced = false;
        require(core().capture_end(device));
      }
      kept_pool& pool = *find_locked(device, found->id);
      finish_pending_locked(pool);
      if (char* const pointer = pool.blocks.allocate_from_free(bytes, requested, stream)) {
        return block{pointer, pool.blocks.blocks().at(pointer).bytes, &pool.blocks, pool.id};
      }
      if (segment_bytes > room) return block{nullptr, 0, nullptr, pool.id};
      id = pool.id;
      source = {pool.source, pool.pages, pool.pages_end};
      if (pool.pages != nullptr) pool.pages_end += segment_bytes;
    }
    char* const segment = take_segment(device, id, source, segment_bytes, stream, stack);
    const std::lock_guard lock(mutex_);
    kept_pool& pool = make_locked(device, id);
    if (segment == nullptr) {
      if (pool.pages_end == source.offset + segment_bytes) pool.pages_end = source.offset;
      return block{nullptr, 0, nullptr, id};
    }
    pool.blocks.add_segment(segment, bytes, stream);
  }
}

private_pools::block private_pools::allocate_when_out_of_memory(c10::DeviceIndex device, std::size_t bytes,
                                                                std::size_t requested, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  for (const auto& [its, pool] : pools_) {
    if (its.first != device || !pool->use_when_out_of_memory) continue;
    finish_pending_locked(*pool);
    if (char* const pointer = pool->blocks.allocate_from_free(bytes, requested, stream)) {
      return {pointer, pool->blocks.blocks().at(pointer).bytes, &pool->blocks, pool->id};
    }
  }
  return {};
}

void private_pools::record_stream(void* pointer, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  for (const auto& [its, pool] : pools_) {
    const auto block = pool->blocks.blocks().find(static_cast<char*>(pointer));
    if (block == pool->blocks.blocks().end()) continue;
    auto& streams = pool->recorded[pointer];
    if (std::find(streams.begin(), streams.end(), stream) == streams.end()) streams.push_back(stream);
    return;
  }
}

void private_pools::free(const live_block& freed, void* pointer) {
  std::unique_lock lock(mutex_);
  kept_pool& pool = owner_locked(freed.pool, freed.device);
  auto streams = pool.recorded.find(pointer);
  if (streams == pool.recorded.end()) {
    pool.blocks.free(static_cast<char*>(pointer));
  } else {
    pending_free pending{static_cast<char*>(pointer), std::move(streams->second), {}};
    pool.recorded.erase(streams);
    pool.pending.push_back(std::move(pending));
    if (pool.filling == 0) {
      c10::cuda::CUDAGuard guard(freed.device);
      for (cudaStream_t stream : pool.pending.back().streams) {
        cudaEvent_t event = nullptr;
        if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) continue;
        (void)cudaEventRecord(event, stream);
        pool.pending.back().events.push_back(event);
      }
      pool.pending.back().streams.clear();
    }
  }
  const idle_segments idle = forget_if_done_locked(pool);
  lock.unlock();
  give_back(idle);
}

bool private_pools::has(c10::DeviceIndex device, mempool_id id) const {
  const std::lock_guard lock(mutex_);
  return find_locked(device, id) != nullptr;
}

void private_pools::begin(c10::DeviceIndex device, mempool_id id, std::function<bool(cudaStream_t)> filter) {
  // The first number is that of a pool which a graph's capture makes; pools that programs make have the second one.
  const graph_pages::set_number set = id.first != 0 ? graph_pages::joined() : 0;
  cenote_page_set* const pages = set != 0 ? pages_.of(set, device) : nullptr;
  const std::lock_guard lock(mutex_);
  for (const route& each : routes_) {
    TORCH_CHECK(each.device != device || each.id != id, "beginAllocateToPool: already recording to mempool_id");
  }
  const bool is_new = find_locked(device, id) == nullptr;
  kept_pool& pool = make_locked(device, id);
  if (is_new) {
    pool.set = set;
    pool.pages = pages;
  }
  constexpr bool announces = !marks_captures<cuda_allocator>;
  if (announces) require(core().capture_begin(device));
  ++pool.count;
  ++pool.filling;
  routes_.push_back({device, id, std::move(filter), announces});
  routes_count_.store(static_cast<int>(routes_.size()), std::memory_order_release);
}

bool private_pools::end(c10::DeviceIndex device, mempool_id id) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(routes_.begin(), routes_.end(),
                                  [&](const route& each) { return each.device == device && each.id == id; });
  if (found == routes_.end()) return false;
  if (found->is_announced) require(core().capture_end(device));
  routes_.erase(found);
  routes_count_.store(static_cast<int>(routes_.size()), std::memory_order_release);
  kept_pool& pool = *find_locked(device, id);
  --pool.filling;
  if (pool.filling == 0) {
    c10::cuda::CUDAGuard guard(device);
    for (pending_free& each : pool.pending) {
      for (cudaStream_t stream : each.streams) {
        cudaEvent_t event = nullptr;
        if (is_capturing(stream) || cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) continue;
        (void)cudaEventRecord(event, stream);
        each.events.push_back(event);
      }
      each.streams.clear();
    }
  }
  return true;
}

void private_pools::mark_capture(c10::DeviceIndex device, bool begins) {
  require(begins ? core().capture_begin(device) : core().capture_end(device));
}

bool private_pools::release(c10::DeviceIndex device, mempool_id id) {
  std::unique_lock lock(mutex_);
  kept_pool* const pool = find_locked(device, id);
  if (pool == nullptr) return false;
  if (pool->count > 0) --pool->count;
  const idle_segments idle = forget_if_done_locked(*pool);
  lock.unlock();
  give_back(idle);
  return true;
}

void private_pools::create_or_count(c10::DeviceIndex device, mempool_id id, std::shared_ptr<cuda_allocator> source) {
  const std::lock_guard lock(mutex_);
  const bool is_new = find_locked(device, id) == nullptr;
  kept_pool& pool = make_locked(device, id);
  ++pool.count;
  if (is_new) pool.source = std::move(source);
}

int private_pools::use_count(c10::DeviceIndex device, mempool_id id) const {
  const std::lock_guard lock(mutex_);
  const kept_pool* const pool = find_locked(device, id);
  return pool == nullptr ? 0 : pool->count;
}

void private_pools::use_when_out_of_memory(c10::DeviceIndex device, mempool_id id, bool use) {
  const std::lock_guard lock(mutex_);
  make_locked(device, id).use_when_out_of_memory = use;
}

void private_pools::set_no_split(c10::DeviceIndex device, mempool_id id) {
  const std::lock_guard lock(mutex_);
  make_locked(device, id).blocks.set_no_split();
}

graph_pages::set_number private_pools::set_of(mempool_id id) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [its, pool] : pools_) {
    if (its.second == id) return pool->set;
  }
  return 0;
}

void private_pools::release_idle(c10::DeviceIndex device) {
  std::unique_lock lock(mutex_);
  idle_segments idle;
  for (auto each = pools_.begin(); each != pools_.end();) {
    kept_pool& pool = *(each++)->second;  // it may be gone after this
    if (pool.device != device) continue;
    finish_pending_locked(pool);
    const idle_segments its = forget_if_done_locked(pool);
    idle.insert(idle.end(), its.begin(), its.end());
  }
  lock.unlock();
  give_back(idle);
}

pool_totals private_pools::totals(c10::DeviceIndex device) const {
  const std::lock_guard lock(mutex_);
  pool_totals totals;
  for (const auto& [its, pool] : pools_) {
    if (its.first != device) continue;
    pool_totals of_pool;
    pool->blocks.add_totals(of_pool);
    if (pool->pages != nullptr) of_pool.forget_segments();
    totals.add(of_pool);
  }
  return totals;
}

std::size_t private_pools::foreign_bytes(c10::DeviceIndex device) const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = 0;
  for (const auto& [its, pool] : pools_) {
    if (its.first != device || !pool->source) continue;
    for (const auto& [address, segment] : pool->blocks.segments()) bytes += segment.bytes;
  }
  return bytes;
}

void private_pools::for_each(c10::DeviceIndex device,
                             const std::function<void(mempool_id, const private_pool&)>& visit) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [its, pool] : pools_) {
    if (its.first == device) visit(its.second, pool->blocks);
  }
}

}  // namespace cenote::torch
