#include "full_allocator.hpp"

#include <c10/core/impl/GPUTrace.h>
#include <c10/cuda/CUDAAllocatorConfig.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/ApproximateClock.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <type_traits>

#include "cenote/ground/error.hpp"
#include "cenote/ground/foreign_exception.hpp"
#include "core.hpp"
#include "sizes.hpp"

namespace cenote::torch {
namespace {

full_allocator* the_allocator = nullptr;

/// How often the core is asked for what it holds, so that the peak of it is known: in ticks of the processor's clock,
/// some milliseconds.
constexpr std::uint64_t ticks_between_looks = 5'000'000;

/// PyTorch keeps its own streams for ever. The number of one that a program brought is the stream's address, which is
/// even; those of its own are odd, but for the default stream.
bool is_foreign(const c10::cuda::CUDAStream& stream) { return stream.id() != 0 && (stream.id() & 1) == 0; }

cenote_memory_state state_of(c10::DeviceIndex device) {
  cenote_memory_state state{};
  state.struct_size = sizeof(state);
  if (core().get_memory_state(device, &state) != 0) TORCH_CHECK(false, core().last_error());
  return state;
}

std::size_t known(std::uint64_t figure, std::size_t otherwise) {
  return figure == CENOTE_UNKNOWN ? otherwise : static_cast<std::size_t>(figure);
}

/// As PyTorch spells sizes; without a stream, whose locale may be that of another copy of the C++ runtime.
std::string spell(std::size_t bytes) {
  if (bytes <= 1024) return std::to_string(bytes) + " bytes";
  constexpr std::array<const char*, 3> units{"KiB", "MiB", "GiB"};
  double amount = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; amount > 1024 && unit + 1 < units.size(); ++unit) amount /= 1024;
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.2f %s", amount, units.at(unit));
  return text.data();
}

}  // namespace

full_allocator::full_allocator(cuda_allocator* native) : native_(native) {
  the_allocator = this;
  is_initialized_ = native->initialized();
}

void full_allocator::turn_on(bool on) {
  if (!on && is_initialized_ && !native_->initialized()) native_->init(device_count_);
  is_on_.store(on, std::memory_order_release);
}

full_allocator::device_state& full_allocator::of(c10::DeviceIndex device) {
  TORCH_CHECK(device >= 0 && static_cast<std::size_t>(device) < devices_.size(), "Invalid device argument");
  return devices_[static_cast<std::size_t>(device)];
}

// --- Allocation ------------------------------------------------------------------------------------------------------

bool full_allocator::allocate_from_core(const request& wanted, void*& pointer, std::string& why) {
  try {
    pointer = core().allocate_or_throw(client(), wanted.device, wanted.bytes, wanted.stream);
    return true;
  } catch (const cenote::out_of_memory& error) {
    why = error.what();
    return false;
  } catch (const cenote::foreign_exception& interrupt) {
    interrupt.raise_later();
    throw;
  }
}

bool full_allocator::try_allocate(const request& wanted, const context& stack, live_block& block, void*& pointer,
                                  std::string& why) {
  device_state& device = of(wanted.device);
  const std::size_t limit = device.limit.load(std::memory_order_relaxed);
  if (limit != 0 && device.counters.allocated_bytes() + wanted.bytes > limit) {
    why = "The limit of torch.cuda.set_per_process_memory_fraction is " + spell(limit) + ".";
    return false;
  }
  if (pools_.has_routes()) {
    if (const auto routed = pools_.allocate(wanted.device, wanted.bytes, wanted.requested, wanted.stream, stack)) {
      pointer = routed->pointer;
      block.bytes = routed->bytes;
      block.pool = routed->pool;
      block.pool_id = routed->id;
      if (pointer == nullptr) why = core().last_error();
      return pointer != nullptr;
    }
  }
  return allocate_from_core(wanted, pointer, why);
}

/// A limit that PYTORCH_ALLOC_CONF sets holds for a device from its first use on.
void full_allocator::use_first(c10::DeviceIndex device) {
  of(device).is_used = true;
  [&]<class Config>(std::type_identity<Config>) {
    if constexpr (requires { Config::per_process_memory_fraction(); }) {
      const double fraction = Config::per_process_memory_fraction();
      if (fraction < 1 && of(device).limit == 0) setMemoryFraction(fraction, device);
    }
  }(std::type_identity<c10::cuda::CUDACachingAllocator::CUDAAllocatorConfig>{});
}

/// Gives back what is idle, so that one more attempt makes sense.
void full_allocator::make_room(const request& wanted) {
  for (const auto& name : c10::FreeCudaMemoryCallbacksRegistry()->Keys()) {
    c10::FreeCudaMemoryCallbacksRegistry()->Create(name)->Execute();
  }
  of(wanted.device).counters.add_retry();
  if (!pools_.has_routes()) recorded_.finish_all(wanted.device);
  pools_.release_idle(wanted.device);
  if (has_native()) native_->emptyCache();
  core().trim_to(wanted.device, 0, 1);
}

void* full_allocator::allocate_on(std::size_t bytes, c10::DeviceIndex device, cudaStream_t stream,
                                  bool stream_is_foreign) {
  if (bytes == 0) return nullptr;
  if (!of(device).is_used.load(std::memory_order_relaxed)) use_first(device);
  const context stack = history_.gather(record_level::STATE);
  if (recorded_.has_waiting(device) && !pools_.has_routes()) recorded_.finish_done(device);
  const request wanted{device, round_up(bytes, block_granularity), bytes, stream, stream_is_foreign};
  live_block block;
  block.bytes = wanted.bytes;
  block.requested = bytes;
  block.stream = stream;
  block.device = device;
  block.is_large = wanted.bytes > largest_small;
  block.outlives_its_stream = stream_is_foreign;
  block.stack = stack;

  void* pointer = nullptr;
  std::string why;
  if (!try_allocate(wanted, stack, block, pointer, why)) {
    make_room(wanted);
    if (!try_allocate(wanted, stack, block, pointer, why)) {
      const auto found = pools_.allocate_when_out_of_memory(device, wanted.bytes, bytes, stream);
      if (found.pointer == nullptr) fail(wanted, why, stack);
      pointer = found.pointer;
      block.bytes = found.bytes;
      block.pool = found.pool;
      block.pool_id = found.id;
    }
  }

  const traced event{trace_entry::ALLOC, device, reinterpret_cast<std::size_t>(pointer),
                     block.bytes,        stream, block.pool_id};
  if (block.pool == nullptr) {
    history_.record_allocation(event, stack);
  } else {
    history_.record(event, stack);
  }
  device_state& its = of(device);
  const std::size_t allocated = its.counters.add(block);
  const std::size_t size = block.bytes;
  const bool is_large = block.is_large;
  blocks_.insert(pointer, std::move(block));

  if (allocated > its.reserved_when_looked.load(std::memory_order_relaxed)) {
    look_at_reserved(device);
  } else if (is_large) {
    const auto now = static_cast<std::uint64_t>(c10::getApproximateTime());
    if (now >= its.next_look.load(std::memory_order_relaxed)) {
      const std::size_t limit = its.limit.load(std::memory_order_relaxed);
      if (look_at_reserved(device) > limit && limit != 0) core().trim_to(device, limit, 0);
    }
  }
  report(pointer, static_cast<std::int64_t>(size), allocated, device);
  return pointer;
}

void full_allocator::fail(const request& wanted, const std::string& why, const context& stack) {
  device_state& its = of(wanted.device);
  its.counters.add_out_of_memory();
  const std::size_t reserved = look_at_reserved(wanted.device);
  const std::size_t allocated = its.counters.allocated_bytes();
  const cenote_memory_state state = state_of(wanted.device);
  const std::size_t device_free = known(state.device_free, 0);
  const std::size_t device_total = known(state.device_total, 0);
  const std::size_t limit = its.limit;
  history_.record({trace_entry::OOM, wanted.device, device_free, wanted.requested, wanted.stream}, stack);
  c10::reportOutOfMemoryToProfiler(static_cast<std::int64_t>(wanted.requested), allocated, reserved,
                                   c10::Device(c10::DeviceType::CUDA, wanted.device));
  std::vector<OutOfMemoryObserver> observers;
  {
    const std::lock_guard lock(observers_mutex_);
    observers = observers_;
  }
  for (const auto& observer : observers) {
    observer(wanted.device, wanted.requested, limit != 0 ? limit : device_total, device_free);
  }
  std::string text = "CUDA out of memory. Tried to allocate " + spell(wanted.requested) + ". GPU " +
                     std::to_string(static_cast<int>(wanted.device)) + " has a total capacity of " +
                     spell(device_total) + " of which " + spell(device_free) + " is free. ";
  if (limit != 0) text += spell(limit) + " allowed; ";
  text += "Of the allocated memory " + spell(allocated) + " is allocated by PyTorch, and " +
          spell(reserved > allocated ? reserved - allocated : 0) + " is reserved by PyTorch but unallocated. cenote: ";
  C10_THROW_ERROR(OutOfMemoryError, text + why);
}

c10::DataPtr full_allocator::allocate(std::size_t bytes) {
  if (!is_on()) return native_->allocate(bytes);
  TORCH_CHECK_WITH(OutOfMemoryError, bytes < one_exbibyte,
                   "CUDA out of memory. Tried to allocate more than 1EB memory.");
  const c10::DeviceIndex device = c10::cuda::current_device();
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device);
  void* const pointer = allocate_on(bytes, device, stream.stream(), is_foreign(stream));
  if (pointer != nullptr) {
    if (const c10::impl::PyInterpreter* const interpreter = c10::impl::GPUTrace::get_trace()) {
      (*interpreter)->trace_gpu_memory_allocation(c10::kCUDA, reinterpret_cast<std::uintptr_t>(pointer));
    }
  }
  return {pointer, pointer, &free_block, c10::Device(c10::DeviceType::CUDA, device)};
}

void* full_allocator::raw_alloc(std::size_t bytes) {
  if (!is_on()) return native_->raw_alloc(bytes);
  const c10::DeviceIndex device = c10::cuda::current_device();
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device);
  return allocate_on(bytes, device, stream.stream(), is_foreign(stream));
}

void* full_allocator::raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) {
  if (!is_on()) return native_->raw_alloc_with_stream(bytes, stream);
  return allocate_on(bytes, c10::cuda::current_device(), stream, false);
}

// --- Frees -----------------------------------------------------------------------------------------------------------

void full_allocator::free_block(void* pointer) {
  if (const c10::impl::PyInterpreter* const interpreter = c10::impl::GPUTrace::get_trace()) {
    (*interpreter)->trace_gpu_memory_deallocation(c10::kCUDA, reinterpret_cast<std::uintptr_t>(pointer));
  }
  the_allocator->free(pointer);
}

void full_allocator::free(void* pointer) {
  if (pointer == nullptr) return;
  live_block block;
  if (!blocks_.take(pointer, block)) {
    if (has_native()) native_->raw_delete(pointer);
    return;
  }
  const auto address = reinterpret_cast<std::size_t>(pointer);
  if (history_.is_enabled()) {
    history_.record({trace_entry::FREE_REQUESTED, block.device, address, block.bytes, block.stream, block.pool_id},
                    history_.gather(record_level::ALL));
  }
  const c10::DeviceIndex device = block.device;
  const auto bytes = static_cast<std::int64_t>(block.bytes);
  const std::size_t allocated = of(device).counters.remove_allocated(block);
  if (block.is_recorded) {
    free_recorded(pointer, std::move(block));
  } else {
    finish_free(pointer, block);
  }
  report(pointer, -bytes, allocated, device);
}

/// After the work of the streams that were recorded.
void full_allocator::free_recorded(void* pointer, live_block block) {
  const std::vector<cudaStream_t> streams = recorded_.take(pointer);
  block.is_pending = true;
  if (!pools_.has_routes() && recorded_.free_later(pointer, block, streams)) return;
  for (const cudaStream_t stream : streams) core().record_stream(pointer, stream);
  finish_free(pointer, block);
}

void full_allocator::finish_free(void* pointer, const live_block& block) {
  of(block.device).counters.remove_active(block);
  if (history_.is_enabled()) {
    history_.record({trace_entry::FREE_COMPLETED, block.device, reinterpret_cast<std::size_t>(pointer), block.bytes,
                     block.stream, block.pool_id},
                    history_.gather(record_level::ALL));
  }
  if (block.pool != nullptr) {
    pools_.free(block, pointer);
  } else if (block.outlives_its_stream) {
    core().deallocate(pointer, c10::cuda::getStreamFromPool(false, block.device).stream());
  } else {
    core().deallocate(pointer, block.stream);
  }
}

void full_allocator::raw_delete(void* pointer) { free(pointer); }

c10::DeleterFnPtr full_allocator::raw_deleter() const { return is_on() ? &free_block : native_->raw_deleter(); }

void full_allocator::copy_data(void* target, const void* source, std::size_t bytes) const {
  C10_CUDA_CHECK(cudaMemcpy(target, source, bytes, cudaMemcpyDeviceToDevice));
}

void full_allocator::report(void* pointer, std::int64_t bytes, std::size_t allocated, c10::DeviceIndex device) {
  if (!c10::memoryProfilingEnabled()) return;
  c10::reportMemoryUsageToProfiler(pointer, bytes, allocated, look_at_reserved(device),
                                   c10::Device(c10::DeviceType::CUDA, device));
}

void full_allocator::emptyCache(mempool_id id) {
  const int devices = std::max(device_count_.load(), core().device_count());
  for (int device = 0; device < devices; ++device) {
    if (!pools_.has_routes()) recorded_.finish_all(static_cast<c10::DeviceIndex>(device));
    pools_.release_idle(static_cast<c10::DeviceIndex>(device));
    if (id == mempool_id{0, 0} && core().trim_to(device, 0, 1) < 0) TORCH_CHECK(false, core().last_error());
  }
  if (has_native()) native_->emptyCache(id);
}

void full_allocator::recordStream(const c10::DataPtr& data, c10::cuda::CUDAStream stream) {
  void* const pointer = data.get_context();
  if (pointer == nullptr) return;
  private_pool* pool = nullptr;
  bool is_its_own = false;
  bool is_exact = false;
  const bool is_ours = blocks_.visit(pointer, [&](live_block& block) {
    pool = block.pool;
    is_its_own = block.stream == stream.stream() && block.device == stream.device_index();
    is_exact = pool == nullptr && !is_foreign(stream) && block.device == stream.device_index();
    if (is_exact && !is_its_own) block.is_recorded = true;
  });
  if (!is_ours) {
    if (has_native()) native_->recordStream(data, stream);
  } else if (is_its_own) {
    return;
  } else if (is_exact) {
    recorded_.record(pointer, stream.stream());
  } else if (pool != nullptr) {
    pools_.record_stream(pointer, stream.stream());
  } else if (core().record_stream(pointer, stream.stream()) != 0) {
    TORCH_CHECK(false, core().last_error());
  }
}

// --- Figures ---------------------------------------------------------------------------------------------------------

std::size_t full_allocator::look_at_reserved(c10::DeviceIndex device) {
  device_state& its = of(device);
  its.next_look.store(static_cast<std::uint64_t>(c10::getApproximateTime()) + ticks_between_looks);
  const pool_totals pools = pools_.totals(device);
  const device_figures counted = its.counters.read();
  const std::size_t active = static_cast<std::size_t>(counted.active_bytes[0].current);
  const std::size_t active_small = static_cast<std::size_t>(counted.active_bytes[1].current);
  const cenote_memory_state state = state_of(device);
  const std::size_t held = known(state.held, known(state.in_use, 0)) + pools_.foreign_bytes(device);
  const std::size_t in_pools = pools.bytes[0] + pools.bytes[1];
  const std::size_t live_in_pools = pools.live_bytes[0] + pools.live_bytes[1];
  // Other clients' bytes are counted in as well; where the resource does not know what it holds, it is what is in use.
  const std::size_t least = in_pools + (active > live_in_pools ? active - live_in_pools : 0);
  const std::size_t reserved = std::max(held, least);

  reserved_figures figures;
  const std::size_t small_outside = active_small > pools.live_bytes[0] ? active_small - pools.live_bytes[0] : 0;
  figures.small = std::min(reserved, pools.bytes[0] + small_outside);
  figures.large = reserved - figures.small;
  figures.segments_small = pools.segments[0];
  figures.segments_large = pools.segments[1];
  figures.split_blocks_small = pools.split_blocks[0];
  figures.split_blocks_large = pools.split_blocks[1];
  figures.split_bytes_small = pools.split_bytes[0];
  figures.split_bytes_large = pools.split_bytes[1];
  its.counters.set_reserved(figures);
  its.reserved_when_looked.store(reserved, std::memory_order_relaxed);
  return reserved;
}

device_figures full_allocator::getDeviceStats(c10::DeviceIndex device) {
  if (of(device).is_used) look_at_reserved(device);  // another device is not touched by asking
  device_figures figures = of(device).counters.read();
  figures.max_split_size = -1;
  if (has_native()) add_figures(figures, native_->getDeviceStats(device));
  return figures;
}

void full_allocator::resetAccumulatedStats(c10::DeviceIndex device) {
  of(device).counters.reset_accumulated();
  if (has_native()) native_->resetAccumulatedStats(device);
}

void full_allocator::resetPeakStats(c10::DeviceIndex device) {
  if (of(device).is_used) look_at_reserved(device);
  of(device).counters.reset_peak();
  if (has_native()) native_->resetPeakStats(device);
}

void full_allocator::cacheInfo(c10::DeviceIndex device, std::size_t* largest) {
  const cenote_memory_state state = state_of(device);
  *largest = std::max(known(state.device_free, 0), known(state.largest_free, 0));
}

void* full_allocator::getBaseAllocation(void* pointer, std::size_t* bytes) {
  const bool is_ours = blocks_.visit(pointer, [&](const live_block& block) {
    if (bytes != nullptr) *bytes = block.bytes;
  });
  return is_ours ? pointer : native_->getBaseAllocation(pointer, bytes);
}

// --- Settings --------------------------------------------------------------------------------------------------------

void full_allocator::init(int device_count) {
  device_count_ = device_count;
  is_initialized_ = true;
  if (!is_on()) native_->init(device_count);
}

bool full_allocator::initialized() { return is_initialized_; }

double full_allocator::getMemoryFraction(c10::DeviceIndex device) { return of(device).fraction; }

void full_allocator::setMemoryFraction(double fraction, c10::DeviceIndex device) {
  TORCH_CHECK(0 <= fraction && fraction <= 1,
              "invalid fraction: " + std::to_string(fraction) + ". Please set within [0, 1].");
  const std::size_t total = known(state_of(device).device_total, 0);
  of(device).fraction = fraction;
  // A fraction of 0 allows nothing; a limit of 0 would be none.
  of(device).limit = fraction == 1 ? 0 : std::max<std::size_t>(1, static_cast<std::size_t>(fraction * total));
  if (has_native()) native_->setMemoryFraction(fraction, device);
}

#if CENOTE_TORCH_VERSION >= 21000
std::vector<c10::cuda::CUDACachingAllocator::StreamSegmentSize> full_allocator::getExpandableSegmentSizes(
    c10::DeviceIndex device) {
  if (has_native()) return native_->getExpandableSegmentSizes(device);
  return {};
}
#endif

void full_allocator::enable(bool value) { is_enabled_ = value; }
bool full_allocator::isEnabled() const { return is_enabled_; }
std::string full_allocator::name() { return is_on() ? "cenote" : native_->name(); }

void full_allocator::enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex accessed) {
  c10::cuda::CUDAGuard guard(device);
  const cudaError_t result = cudaDeviceEnablePeerAccess(accessed, 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
  } else {
    C10_CUDA_CHECK(result);
  }
}

cudaError_t full_allocator::memcpyAsync(void* target, int target_device, const void* source, int source_device,
                                        std::size_t bytes, cudaStream_t stream, bool has_peer_access) {
  if (has_peer_access || target_device == source_device) {
    return cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, stream);
  }
  return cudaMemcpyPeerAsync(target, target_device, source, source_device, bytes, stream);
}

// --- Pools -----------------------------------------------------------------------------------------------------------

void full_allocator::beginAllocateToPool(c10::DeviceIndex device, mempool_id id,
                                         std::function<bool(cudaStream_t)> filter) {
  if (!is_on() && !pools_.has(device, id)) return native_->beginAllocateToPool(device, id, std::move(filter));
  pools_.begin(device, id, std::move(filter));
}

void full_allocator::endAllocateToPool(c10::DeviceIndex device, mempool_id id) {
  if (!pools_.end(device, id) && has_native()) native_->endAllocateToPool(device, id);
}

void full_allocator::markCaptureBegin(c10::DeviceIndex device) { pools_.mark_capture(device, true); }
void full_allocator::markCaptureEnd(c10::DeviceIndex device) { pools_.mark_capture(device, false); }

void full_allocator::releasePool(c10::DeviceIndex device, mempool_id id) {
  if (!pools_.release(device, id) && has_native()) native_->releasePool(device, id);
}

int full_allocator::getPoolUseCount(c10::DeviceIndex device, mempool_id id) {
  if (!pools_.has(device, id) && has_native()) return native_->getPoolUseCount(device, id);
  return pools_.use_count(device, id);
}

void full_allocator::createOrIncrefPool(c10::DeviceIndex device, mempool_id id,
                                        std::shared_ptr<cuda_allocator> source) {
  pools_.create_or_count(device, id, std::move(source));
}

void full_allocator::createOrIncrefPool(c10::DeviceIndex device, mempool_id id, cuda_allocator* source) {
  // The MemPool keeps it alive, as it does for PyTorch's own allocator.
  pools_.create_or_count(device, id, std::shared_ptr<cuda_allocator>(source, [](cuda_allocator*) {}));
}

void full_allocator::setUseOnOOM(c10::DeviceIndex device, mempool_id id, bool use) {
  pools_.use_when_out_of_memory(device, id, use);
}
void full_allocator::setUseOnOOM(c10::DeviceIndex device, mempool_id id) { setUseOnOOM(device, id, true); }
void full_allocator::setNoSplit(c10::DeviceIndex device, mempool_id id) { pools_.set_no_split(device, id); }

bool full_allocator::checkPoolLiveAllocations(c10::DeviceIndex device, mempool_id id,
                                              const std::unordered_set<void*>& expected) {
  if (!pools_.has(device, id) && has_native()) return native_->checkPoolLiveAllocations(device, id, expected);
  return pools_.live_blocks_are(device, id, expected);
}

std::shared_ptr<AllocatorState> full_allocator::getCheckpointState(c10::DeviceIndex device, mempool_id id) {
  if (!pools_.has(device, id) && has_native()) return native_->getCheckpointState(device, id);
  return pools_.state(device, id);
}

CheckpointDelta full_allocator::setCheckpointPoolState(c10::DeviceIndex device, std::shared_ptr<AllocatorState> state) {
  const auto wanted = std::dynamic_pointer_cast<pool_state>(state);
  if (!wanted) return native_->setCheckpointPoolState(device, std::move(state));
  const private_pools::changes changes = pools_.restore(device, *wanted);
  CheckpointDelta delta;
  for (void* const pointer : changes.freed) {
    live_block block;
    if (blocks_.take(pointer, block)) of(device).counters.remove(block);
    delta.ptrs_freed.push_back(pointer);
  }
  for (const pool_state::block& each : changes.made) {
    live_block block;
    block.bytes = each.bytes;
    block.requested = each.requested;
    block.stream = each.stream;
    block.pool = changes.pool;
    block.device = device;
    block.is_large = each.bytes > largest_small;
    of(device).counters.add(block);
    blocks_.insert(each.address, std::move(block));
    delta.dataptrs_allocd.emplace_back(each.address, each.address, &free_block,
                                       c10::Device(c10::DeviceType::CUDA, device));
  }
  return delta;
}

// --- Other processes -------------------------------------------------------------------------------------------------

ShareableHandle full_allocator::shareIpcHandle(void* pointer) {
  std::size_t bytes = 0;
  c10::DeviceIndex device = 0;
  const bool is_ours = blocks_.visit(pointer, [&](const live_block& block) {
    bytes = block.bytes;
    device = block.device;
  });
  if (!is_ours) return native_->shareIpcHandle(pointer);
  return {0, shared_.share(pointer, bytes, device)};
}

std::shared_ptr<void> full_allocator::getIpcDevPtr(std::string handle) {
  if (!shared_memory::is_handle(handle)) return native_->getIpcDevPtr(std::move(handle));
  return shared_.open(handle);
}

// --- History ---------------------------------------------------------------------------------------------------------

bool full_allocator::isHistoryEnabled() { return history_.is_enabled(); }

void full_allocator::recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when,
                                   bool clear, const std::vector<std::string>& skipped) {
  history_.configure({enabled, recorder, max_entries, when, clear, skipped});
  if (enabled) {
    for (int device = 0; device < std::max(1, device_count_.load()); ++device) {
      for (const auto& [address, block] : blocks_.of_device(static_cast<c10::DeviceIndex>(device))) {
        if (block.pool == nullptr) history_.know_pages(block.device, address, block.bytes);
      }
    }
  }
  if (!has_native()) return;
  [&](auto& native) {
    if constexpr (requires { native.recordHistory(enabled, recorder, max_entries, when, clear, skipped); }) {
      native.recordHistory(enabled, recorder, max_entries, when, clear, skipped);
    } else {
      native.recordHistory(enabled, recorder, max_entries, when, clear);
    }
  }(*native_);
}

void full_allocator::recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when,
                                   bool clear) {
  recordHistory(enabled, recorder, max_entries, when, clear, {});
}

void full_allocator::recordAnnotation(const std::vector<std::pair<std::string, std::string>>& metadata) {
  if (history_.is_enabled()) history_.annotate(c10::cuda::current_device(), metadata);
}

void full_allocator::pushCompileContext(std::string& text) { memory_history::push_compile_context(text); }
void full_allocator::popCompileContext() { memory_history::pop_compile_context(); }
void full_allocator::setUserMetadata(const std::string& text) { history_.set_user_metadata(text); }
std::string full_allocator::getUserMetadata() { return history_.user_metadata(); }

context full_allocator::getContextForPointer(const void* pointer) {
  context found;
  blocks_.visit(pointer, [&](const live_block& block) { found = block.stack; });
  return found;
}

void full_allocator::attachOutOfMemoryObserver(OutOfMemoryObserver observer) {
  const std::lock_guard lock(observers_mutex_);
  observers_.push_back(observer);
  native_->attachOutOfMemoryObserver(std::move(observer));
}

/// Nothing is rejected before it was tried: there is nobody to be told.
void full_allocator::attachOomRejectionObserver(
    std::function<void(std::int64_t, std::size_t, std::size_t, std::size_t)>) {}

void full_allocator::attachAllocatorTraceTracker(trace_tracker tracker) {
  history_.attach_tracker(tracker);
  native_->attachAllocatorTraceTracker(std::move(tracker));
}

SnapshotInfo full_allocator::snapshot(mempool_id id, bool include_traces) {
  SnapshotInfo result;
  if (has_native()) {
    [&](auto& native) {
      if constexpr (requires { native.snapshot(id, include_traces); }) {
        result = native.snapshot(id, include_traces);
      } else {
        result = native.snapshot(id);
      }
    }(*native_);
  }
  auto& config = result.config_metadata;
  if (!has_native()) {
    config.max_split_size = std::numeric_limits<std::size_t>::max();
    config.pinned_num_register_threads = 1;
  }
  const bool is_of_all = id == mempool_id{0, 0};
  const int devices = std::max(1, device_count_.load());
  if (result.device_traces.size() < static_cast<std::size_t>(devices)) {
    result.device_traces.resize(static_cast<std::size_t>(devices));
  }
  for (int index = 0; index < devices; ++index) {
    const auto device = static_cast<c10::DeviceIndex>(index);
    auto blocks = blocks_.of_device(device);
    for (auto& each : recorded_.waiting(device)) blocks.push_back(std::move(each));
    std::sort(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    pools_.for_each(device, [&](mempool_id its, const private_pool& pool) {
      if (!is_of_all && its != id) return;
      for (auto& segment : lay_out(pool, its, device, blocks)) result.segments.push_back(std::move(segment));
    });
    if (is_of_all) {
      device_state& its = of(device);
      const std::size_t reserved = its.is_used ? look_at_reserved(device) : 0;
      const pool_totals pools = pools_.totals(device);
      blocks.erase(std::remove_if(blocks.begin(), blocks.end(),
                                  [](const placed_block& each) { return each.second.pool != nullptr; }),
                   blocks.end());
      std::optional<std::set<std::size_t>> pages;
      if (history_.is_enabled()) pages = history_.pages(device);
      main_layout layout =
          lay_out(std::move(blocks), reserved - std::min(reserved, pools.bytes[0] + pools.bytes[1]), pages);
      if (!layout.unmapped_pages.empty()) history_.forget_pages(device, layout.unmapped_pages);
      for (auto& segment : layout.segments) {
        segment.device = device;
        result.segments.push_back(std::move(segment));
      }
    }
    if (include_traces) {
      auto& trace = result.device_traces[static_cast<std::size_t>(index)];
      const auto entries = history_.entries(device);
      trace.insert(trace.end(), entries.begin(), entries.end());
      std::stable_sort(trace.begin(), trace.end(),
                       [](const trace_entry& a, const trace_entry& b) { return a.time_.t_ < b.time_.t_; });
    }
  }
  if (include_traces) {
    for (auto& each : history_.annotations()) result.external_annotations.push_back(std::move(each));
  }
  return result;
}

SnapshotInfo full_allocator::snapshot(mempool_id id) { return snapshot(id, true); }
SnapshotInfo full_allocator::snapshot() { return snapshot({0, 0}, true); }

void full_allocator::annotateMemory(const void* pointer, const std::string& text) {
#if CENOTE_TORCH_VERSION >= 21400
  live_block found;
  if (!blocks_.visit(pointer, [&](const live_block& block) { found = block; })) return;
  (void)text;
  history_.record({trace_entry::ANNOTATE, found.device, reinterpret_cast<std::size_t>(pointer), found.bytes}, nullptr);
#else
  (void)pointer;
  (void)text;
#endif
}

}  // namespace cenote::torch
