#include "recorded_frees.hpp"

#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <utility>

namespace cenote::torch {
namespace {

/// Whether it is CUDA's current device. PyTorch's own answer may be one that it only means to choose.
bool is_current(c10::DeviceIndex device) noexcept {
  int current = -1;
  return cudaGetDevice(&current) == cudaSuccess && current == device;
}

}  // namespace

/// Null where no event can be had.
cudaEvent_t recorded_frees::mark_locked(device_queue& queue, cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  if (!queue.spare.empty()) {
    event = queue.spare.back();
    queue.spare.pop_back();
  } else if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
    (void)cudaGetLastError();
    return nullptr;
  }
  if (cudaEventRecord(event, stream) == cudaSuccess) return event;
  (void)cudaGetLastError();
  cudaEventDestroy(event);
  return nullptr;
}

bool recorded_frees::free_later(void* pointer, live_block& block) {
  device_queue& queue = of(block.device);
  c10::cuda::OptionalCUDAGuard guard;  // an event is of CUDA's current device, and so is the default stream
  if (!is_current(block.device)) guard.set_index(block.device);
  const std::lock_guard lock(queue.mutex);
  waiting_free freed{pointer, {}, mark_locked(queue, block.recorded.front()), {}};
  if (freed.event == nullptr) return false;
  for (std::size_t i = 1; i < block.recorded.size(); ++i) {
    const cudaEvent_t event = mark_locked(queue, block.recorded[i]);
    if (event == nullptr) {
      queue.spare.push_back(freed.event);
      queue.spare.insert(queue.spare.end(), freed.others.begin(), freed.others.end());
      return false;
    }
    freed.others.push_back(event);
  }
  freed.block = std::move(block);
  queue.waiting.push_back(std::move(freed));
  queue.count.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool recorded_frees::is_done_locked(device_queue& queue, waiting_free& first, bool waits) {
  const auto has_passed = [&](cudaEvent_t event) {
    if ((waits ? cudaEventSynchronize(event) : cudaEventQuery(event)) != cudaSuccess) {
      (void)cudaGetLastError();  // "not ready" is no error
      return false;
    }
    queue.spare.push_back(event);
    return true;
  };
  while (!first.others.empty()) {
    if (!has_passed(first.others.back())) return false;
    first.others.pop_back();
  }
  return has_passed(first.event);
}

/// Frees from the oldest on, until one is not done. What is freed on other threads meanwhile may be left out.
void recorded_frees::finish_front(c10::DeviceIndex device, bool waits) {
  device_queue& queue = of(device);
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
  while (has_waiting(device)) {
    std::unique_lock lock(queue.mutex);
    if (queue.waiting.empty() || !is_done_locked(queue, queue.waiting.front(), waits)) return;
    const waiting_free done = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    queue.count.fetch_sub(1, std::memory_order_relaxed);
    lock.unlock();
    done_(done.pointer, done.block);
  }
}

void recorded_frees::finish_done(c10::DeviceIndex device) { finish_front(device, false); }

void recorded_frees::finish_all(c10::DeviceIndex device) { finish_front(device, true); }

std::vector<std::pair<std::uintptr_t, live_block>> recorded_frees::waiting(c10::DeviceIndex device) {
  device_queue& queue = of(device);
  const std::lock_guard lock(queue.mutex);
  std::vector<std::pair<std::uintptr_t, live_block>> blocks;
  for (const waiting_free& each : queue.waiting) {
    blocks.emplace_back(reinterpret_cast<std::uintptr_t>(each.pointer), each.block);
  }
  return blocks;
}

}  // namespace cenote::torch
