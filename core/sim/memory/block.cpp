#include "sim/memory/block.hpp"

#include <iterator>
#include <utility>

namespace cenote::sim {

std::shared_ptr<memory_block> block_map::insert(memory_block block) {
  auto shared = std::make_shared<memory_block>(std::move(block));
  by_base_.emplace(shared->base, shared);
  return shared;
}

void block_map::remove(const memory_block& block) { by_base_.erase(block.base); }

std::shared_ptr<memory_block> block_map::find(std::uintptr_t address) const {
  const auto after = by_base_.upper_bound(address);
  if (after == by_base_.begin()) {
    return nullptr;
  }
  const auto& block = std::prev(after)->second;
  return address - block->base < block->bytes ? block : nullptr;
}

std::shared_ptr<memory_block> block_map::find_base(std::uintptr_t address) const {
  const auto at = by_base_.find(address);
  return at == by_base_.end() ? nullptr : at->second;
}

std::vector<std::shared_ptr<memory_block>> block_map::covering(std::uintptr_t address, std::size_t bytes) const {
  std::vector<std::shared_ptr<memory_block>> found;
  while (auto block = find(address)) {
    found.push_back(block);
    const std::size_t rest = block->base + block->bytes - address;
    if (rest >= bytes) {
      return found;
    }
    address += rest;
    bytes -= rest;
  }
  return {};
}

bool block_map::overlaps(std::uintptr_t address, std::size_t bytes) const {
  const auto next = by_base_.lower_bound(address);
  return (next != by_base_.end() && next->first < address + bytes) || find(address) != nullptr;
}

block_map& live_blocks() {
  static block_map* const blocks = new block_map;
  return *blocks;
}

}  // namespace cenote::sim
