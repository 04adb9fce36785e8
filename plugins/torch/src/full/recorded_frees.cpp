#include "recorded_frees.hpp"

#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

namespace cenote::torch {

void recorded_frees::record(void* pointer, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  auto& streams = recorded_[pointer];
  if (std::find(streams.begin(), streams.end(), stream) == streams.end()) streams.push_back(stream);
}

std::vector<cudaStream_t> recorded_frees::take(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto found = recorded_.find(pointer);
  if (found == recorded_.end()) return {};
  std::vector<cudaStream_t> streams = std::move(found->second);
  recorded_.erase(found);
  return streams;
}

bool recorded_frees::free_later(void* pointer, live_block block, const std::vector<cudaStream_t>& streams) {
  device_queue& queue = of(block.device);
  const std::lock_guard lock(queue.mutex);
  const c10::cuda::OptionalCUDAGuard guard(block.device);
  std::vector<cudaEvent_t> events;
  for (const cudaStream_t stream : streams) {
    cudaEvent_t event = nullptr;
    if (!queue.spare.empty()) {
      event = queue.spare.back();
      queue.spare.pop_back();
    } else if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
      event = nullptr;
    }
    if (event != nullptr) events.push_back(event);
    if (event == nullptr || cudaEventRecord(event, stream) != cudaSuccess) {
      (void)cudaGetLastError();
      queue.spare.insert(queue.spare.end(), events.begin(), events.end());
      return false;
    }
  }
  queue.waiting.push_back({pointer, std::move(block), std::move(events)});
  queue.count.fetch_add(1, std::memory_order_relaxed);
  return true;
}

/// Frees from the oldest on, until one is not done.
void recorded_frees::finish_front(c10::DeviceIndex device, bool waits) {
  device_queue& queue = of(device);
  std::vector<waiting_free> done;
  {
    const std::lock_guard lock(queue.mutex);
    const c10::cuda::CUDAStreamCaptureModeGuard relaxed{cudaStreamCaptureModeRelaxed};
    while (!queue.waiting.empty()) {
      auto& events = queue.waiting.front().events;
      while (!events.empty()) {
        const cudaError_t result = waits ? cudaEventSynchronize(events.back()) : cudaEventQuery(events.back());
        if (result != cudaSuccess) break;
        queue.spare.push_back(events.back());
        events.pop_back();
      }
      if (!events.empty()) {
        (void)cudaGetLastError();  // "not ready" is no error
        break;
      }
      done.push_back(std::move(queue.waiting.front()));
      queue.waiting.pop_front();
      queue.count.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  for (const waiting_free& each : done) done_(each.pointer, each.block);
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
