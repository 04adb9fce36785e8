// The full allocator's pools for graphs and torch.cuda.MemPool, and what it shares with other processes.
#include <algorithm>

#include "full_allocator.hpp"
#include "sizes.hpp"

namespace cenote::torch {

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
    const auto taken = of(device).blocks.take(pointer);
    if (taken && !taken->block.recorded.empty()) of(device).blocks.remove_active(taken->block);
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
    of(device).blocks.insert(each.address, std::move(block));
    delta.dataptrs_allocd.emplace_back(each.address, each.address, &free_block,
                                       c10::Device(c10::DeviceType::CUDA, device));
  }
  return delta;
}

ShareableHandle full_allocator::shareIpcHandle(void* pointer) {
  std::size_t bytes = 0;
  c10::DeviceIndex device = 0;
  const bool is_ours = visit(pointer, [&](const live_block& block) {
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

}  // namespace cenote::torch
