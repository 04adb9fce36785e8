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
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "cenote/ground/error.hpp"
#include "cenote/ground/foreign_exception.hpp"
#include "core.hpp"
#include "lasting_stream.hpp"
#include "resource_state.hpp"
#include "sizes.hpp"

namespace cenote::torch {
namespace {

full_allocator* the_allocator = nullptr;

/// PyTorch keeps its own streams for ever. The number of one that a program brought is the stream's address, which is
/// even; those of its own are odd, but for the default stream.
bool is_foreign(const c10::cuda::CUDAStream& stream) { return stream.id() != 0 && (stream.id() & 1) == 0; }

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

full_allocator::full_allocator(cuda_allocator* native) : core_(core()), client_(client()), native_(native) {
  the_allocator = this;
  is_initialized_ = native->initialized();
  if (is_initialized_) device_count_ = c10::cuda::device_count();  // PyTorch has called init() of the other one
}

void full_allocator::prepare_native() {
  if (is_initialized_ && !native_->initialized()) native_->init(device_count_);
}

void full_allocator::turn_on(bool on) {
  if (!on) prepare_native();
  is_on_.store(on, std::memory_order_release);
}

[[gnu::hot]] full_allocator::device_state& full_allocator::of(c10::DeviceIndex device) {
  TORCH_CHECK(device >= 0 && static_cast<std::size_t>(device) < devices_.size(), "Invalid device argument");
  return devices_[static_cast<std::size_t>(device)];
}

// --- Allocation ------------------------------------------------------------------------------------------------------

[[gnu::hot]] bool full_allocator::allocate_from_core(const request& wanted, void*& pointer, std::string& why) {
  try {
    pointer = core_.allocate_or_throw(client_, wanted.device, wanted.bytes, wanted.stream);
    return true;
  } catch (const cenote::out_of_memory& error) {
    why = error.what();
    return false;
  } catch (const cenote::foreign_exception& interrupt) {
    interrupt.raise_later();
    throw;
  }
}

/// What the limit leaves beside tensors and the segments of private pools.
std::size_t full_allocator::room_on(c10::DeviceIndex device) {
  const std::size_t limit = of(device).limit.load(std::memory_order_relaxed);
  if (limit == 0) return SIZE_MAX;
  const std::size_t allocated = of(device).blocks.allocated_bytes();
  const pool_totals pools = pools_.totals(device);
  const std::size_t outside = allocated - std::min(allocated, pools.live_bytes[0] + pools.live_bytes[1]);
  const std::size_t taken = outside + pools.bytes[0] + pools.bytes[1] + pools_.trim_shared(device, false);
  return limit - std::min(limit, taken);
}

[[gnu::hot]] bool full_allocator::try_allocate(const request& wanted, const context& stack, live_block& block,
                                               void*& pointer, std::string& why) {
  if (of(wanted.device).limit.load(std::memory_order_relaxed) == 0 && !pools_.has_routes()) [[likely]]
    return allocate_from_core(wanted, pointer, why);
  const std::size_t room = room_on(wanted.device);
  const auto say_limit = [&] {
    why = "The limit of torch.cuda.set_per_process_memory_fraction is " + spell(of(wanted.device).limit) + ".";
  };
  if (pools_.has_routes()) {
    if (const auto routed =
            pools_.allocate(wanted.device, wanted.bytes, wanted.requested, wanted.stream, room, stack)) {
      pointer = routed->pointer;
      block.bytes = routed->bytes;
      block.pool = routed->pool;
      block.pool_id = routed->id;
      if (pointer == nullptr) why = core().last_error();
      if (pointer == nullptr && private_pool::segment_bytes(wanted.bytes) > room) say_limit();
      return pointer != nullptr;
    }
  }
  if (wanted.bytes > room) {
    say_limit();
    return false;
  }
  return allocate_from_core(wanted, pointer, why);
}

/// A limit that PYTORCH_ALLOC_CONF sets holds for a device from its first use on.
void full_allocator::use_first(c10::DeviceIndex device) {
  c10::DeviceIndex used = used_devices_;
  while (used <= device && !used_devices_.compare_exchange_weak(used, static_cast<c10::DeviceIndex>(device + 1))) {
  }
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
  of(wanted.device).blocks.with_counters([](device_counters& counters) { counters.add_retry(); });
  pools_.release_idle(wanted.device);
  pools_.trim_shared(wanted.device, !pools_.has_routes());
  if (!pools_.has_routes()) {  // beside a capture the host does not wait for events, nor does PyTorch's own cudaFree
    recorded_.finish_all(wanted.device);
    if (has_native()) native_->emptyCache();
  }
  core().trim_to(wanted.device, 0, 1);
}

[[gnu::hot]] void* full_allocator::allocate_on(std::size_t bytes, c10::DeviceIndex device, cudaStream_t stream,
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
  if (!try_allocate(wanted, stack, block, pointer, why)) [[unlikely]]
    pointer = allocate_under_pressure(wanted, stack, block, why);

  if (history_.is_enabled()) {
    const traced event{trace_entry::ALLOC, device, reinterpret_cast<std::size_t>(pointer),
                       block.bytes,        stream, block.pool_id};
    if (block.pool == nullptr) {
      history_.record_allocation(event, stack);
    } else {
      history_.record(event, stack);
    }
  }
  device_state& its = of(device);
  if (last_device_.load(std::memory_order_relaxed) != device) last_device_.store(device, std::memory_order_relaxed);
  const std::size_t size = block.bytes;
  const bool is_large = block.is_large;
  const auto [allocated, is_nth_large] = its.blocks.insert(pointer, std::move(block));

  if (allocated > its.reserved_when_looked.load(std::memory_order_relaxed)) {
    look_at_reserved(device);
  } else if (const std::size_t limit = its.limit.load(std::memory_order_relaxed);
             is_nth_large || (is_large && limit != 0)) {  // not each time, as the clock costs, too
    const auto now = static_cast<std::uint64_t>(c10::getApproximateTime());
    if (now >= its.next_look.load(std::memory_order_relaxed)) {
      if (look_at_reserved(device) > limit && limit != 0) core().trim_to(device, limit, 0);
    }
  }
  report(pointer, static_cast<std::int64_t>(size), allocated, device);
  return pointer;
}

void* full_allocator::allocate_under_pressure(const request& wanted, const context& stack, live_block& block,
                                              std::string& why) {
  void* pointer = nullptr;
  make_room(wanted);
  if (try_allocate(wanted, stack, block, pointer, why)) return pointer;
  const auto found = pools_.allocate_when_out_of_memory(wanted.device, wanted.bytes, wanted.requested, wanted.stream);
  if (found.pointer == nullptr) fail(wanted, why, stack);
  block.bytes = found.bytes;
  block.pool = found.pool;
  block.pool_id = found.id;
  return found.pointer;
}

void full_allocator::fail(const request& wanted, const std::string& why, const context& stack) {
  device_state& its = of(wanted.device);
  its.blocks.with_counters([](device_counters& counters) { counters.add_out_of_memory(); });
  const std::size_t reserved = look_at_reserved(wanted.device);
  const std::size_t allocated = its.blocks.allocated_bytes();
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

[[gnu::hot]] c10::DataPtr full_allocator::allocate(std::size_t bytes) {
  if (!makes_blocks()) return native_->allocate(bytes);
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

[[gnu::hot]] void* full_allocator::raw_alloc(std::size_t bytes) {
  if (!makes_blocks()) return native_->raw_alloc(bytes);
  const c10::DeviceIndex device = c10::cuda::current_device();
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device);
  return allocate_on(bytes, device, stream.stream(), is_foreign(stream));
}

[[gnu::hot]] void* full_allocator::raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) {
  if (!makes_blocks()) return native_->raw_alloc_with_stream(bytes, stream);
  return allocate_on(bytes, c10::cuda::current_device(), stream, false);
}

// --- Frees -----------------------------------------------------------------------------------------------------------

[[gnu::hot]] void full_allocator::free_block(void* pointer) {
  if (const c10::impl::PyInterpreter* const interpreter = c10::impl::GPUTrace::get_trace()) {
    (*interpreter)->trace_gpu_memory_deallocation(c10::kCUDA, reinterpret_cast<std::uintptr_t>(pointer));
  }
  the_allocator->free(pointer);
}

[[gnu::hot]] void full_allocator::free(void* pointer) {
  if (pointer == nullptr) return;
  auto taken = find_in_devices([&](device_blocks& blocks) { return blocks.take(pointer); });
  if (!taken) [[unlikely]] {
    if (has_native()) native_->raw_delete(pointer);
    return;
  }
  live_block& block = taken->block;
  const auto address = reinterpret_cast<std::size_t>(pointer);
  if (history_.is_enabled()) {
    history_.record({trace_entry::FREE_REQUESTED, block.device, address, block.bytes, block.stream, block.pool_id},
                    history_.gather(record_level::ALL));
  }
  const c10::DeviceIndex device = block.device;
  const auto bytes = static_cast<std::int64_t>(block.bytes);
  if (block.recorded.empty()) [[likely]] {
    give_back(pointer, block);
  } else {
    free_recorded(pointer, block);
  }
  report(pointer, -bytes, taken->allocated, device);
}

/// After the work of the streams that were recorded.
void full_allocator::free_recorded(void* pointer, live_block& block) {
  block.is_pending = true;
  if (!pools_.has_routes() && recorded_.free_later(pointer, block)) return;
  for (const cudaStream_t stream : block.recorded) core().record_stream(pointer, stream);
  finish_free(pointer, block);
}

/// What was pending is not any more.
void full_allocator::finish_free(void* pointer, const live_block& block) {
  of(block.device).blocks.remove_active(block);
  give_back(pointer, block);
}

[[gnu::hot]] void full_allocator::give_back(void* pointer, const live_block& block) {
  shared_.forget(pointer);
  if (history_.is_enabled()) {
    history_.record({trace_entry::FREE_COMPLETED, block.device, reinterpret_cast<std::size_t>(pointer), block.bytes,
                     block.stream, block.pool_id},
                    history_.gather(record_level::ALL));
  }
  if (block.pool != nullptr) {
    pools_.free(block, pointer);
  } else if (block.outlives_its_stream) {
    core_.deallocate(pointer, lasting_stream(block.device));
  } else {
    core_.deallocate(pointer, block.stream);
  }
}

[[gnu::hot]] void full_allocator::raw_delete(void* pointer) { free(pointer); }

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
    pools_.trim_shared(static_cast<c10::DeviceIndex>(device), !pools_.has_routes());
    if (id == mempool_id{0, 0} && core().trim_to(device, 0, 1) < 0) TORCH_CHECK(false, core().last_error());
  }
  if (has_native()) native_->emptyCache(id);
}

[[gnu::hot]] void full_allocator::recordStream(const c10::DataPtr& data, c10::cuda::CUDAStream stream) {
  void* const pointer = data.get_context();
  if (pointer == nullptr) return;
  private_pool* pool = nullptr;
  bool is_its_own = false;
  bool is_exact = false;
  const bool is_ours = visit(pointer, [&](live_block& block) {
    pool = block.pool;
    is_its_own = block.stream == stream.stream() && block.device == stream.device_index();
    is_exact = pool == nullptr && !is_foreign(stream) && block.device == stream.device_index();
    auto& streams = block.recorded;
    if (is_exact && !is_its_own && std::find(streams.begin(), streams.end(), stream.stream()) == streams.end()) {
      streams.push_back(stream.stream());
    }
  });
  if (!is_ours) {
    if (has_native()) native_->recordStream(data, stream);
  } else if (is_its_own || is_exact) {
    return;
  } else if (pool != nullptr) {
    pools_.record_stream(pointer, stream.stream());
  } else if (core().record_stream(pointer, stream.stream()) != 0) {
    TORCH_CHECK(false, core().last_error());
  }
}

}  // namespace cenote::torch
