// Earlier states of private pools, to which cudagraph trees go back.
#include "private_pools.hpp"

namespace cenote::torch {

bool private_pools::live_blocks_are(c10::DeviceIndex device, mempool_id id,
                                    const std::unordered_set<void*>& expected) const {
  const std::lock_guard lock(mutex_);
  const kept_pool* const pool = find_locked(device, id);
  TORCH_CHECK(pool != nullptr, "Could not find pool of id");
  std::size_t found = 0;
  for (const auto& [address, block] : pool->blocks.blocks()) {
    if (!block.is_live || is_pending(*pool, address)) continue;
    if (expected.count(address) == 0) return false;
    ++found;
  }
  return found == expected.size();
}

std::shared_ptr<pool_state> private_pools::state(c10::DeviceIndex device, mempool_id id) const {
  const std::lock_guard lock(mutex_);
  const kept_pool* const pool = find_locked(device, id);
  TORCH_CHECK(pool != nullptr, "Could not find pool of id");
  auto state = std::make_shared<pool_state>();
  state->id = id;
  for (const auto& [address, block] : pool->blocks.blocks()) {
    if (block.is_live && !is_pending(*pool, address)) {
      state->blocks.push_back(
          {address, block.bytes, block.requested, pool->blocks.segments().at(block.segment).stream});
    }
  }
  return state;
}

private_pools::changes private_pools::restore(c10::DeviceIndex device, const pool_state& wanted) {
  const std::lock_guard lock(mutex_);
  kept_pool* const pool = find_locked(device, wanted.id);
  TORCH_CHECK(pool != nullptr, "Could not find private pool id");
  for (pending_free& each : pool->pending) {
    for (cudaEvent_t event : each.events) {
      (void)cudaEventSynchronize(event);
      (void)cudaEventDestroy(event);
    }
    pool->blocks.free(each.address);
  }
  pool->pending.clear();
  changes made;
  made.pool = &pool->blocks;
  for (const auto& [address, block] : pool->blocks.blocks()) {
    if (block.is_live) made.freed.push_back(address);
  }
  for (void* address : made.freed) {
    pool->recorded.erase(address);
    pool->blocks.free(static_cast<char*>(address));
  }
  for (const pool_state::block& each : wanted.blocks) {
    TORCH_CHECK(pool->blocks.take_at(each.address, each.bytes, each.requested),
                "a block of the checkpoint is not in the pool any more");
    made.made.push_back(each);
  }
  return made;
}

}  // namespace cenote::torch
