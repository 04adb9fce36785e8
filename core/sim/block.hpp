// One piece of memory that the simulated driver knows, and the map in which a pointer is looked up.
//
// A block of a pool lives longer than its address looks: cuMemFreeAsync makes it `freeing` at once, for the program,
// and `dead` when the free has run in its stream. Work that was queued before keeps the block itself (not the address),
// so that a copy which runs after the free is recognised even when the address has been handed out again.
//
// Invariants: I1 blocks of the map do not overlap; I2 no block of the map is dead or freeing.
// Threads: guarded by Driver::mutex. Cost: find is O(log blocks).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "made.hpp"

namespace cenote::sim {

struct Device;
struct Graph;
class Pool;
struct Physical;

enum class BlockKind { device, pinned, managed, pooled, pooled_pinned, pooled_managed, graph_owned, mapped };
enum class BlockState { live, freeing, dead };

struct Block {
  std::uintptr_t base;
  std::size_t bytes;  ///< as asked for
  std::size_t held;   ///< as taken from the device, the pool or the address space
  BlockKind kind;
  Device* device;
  std::shared_ptr<Pool> pool;          ///< pooled blocks of all three kinds
  std::shared_ptr<Physical> physical;  ///< mapped blocks
  bool accessible = true;              ///< false: mapped, and cuMemSetAccess has not been called yet
  BlockState state = BlockState::live;
  const char* ended_by = "";  ///< the call that freed, unmapped or sealed it
  Made made = made_now();

  bool in_context() const {
    return kind == BlockKind::device || kind == BlockKind::pinned || kind == BlockKind::managed;
  }
  bool pinned() const { return kind == BlockKind::pinned || kind == BlockKind::pooled_pinned; }
  bool managed() const { return kind == BlockKind::managed || kind == BlockKind::pooled_managed; }
  bool host_visible() const { return pinned() || managed(); }
};

class Blocks {
 public:
  using Map = std::map<std::uintptr_t, std::shared_ptr<Block>>;

  std::shared_ptr<Block> insert(Block block);
  void remove(const Block& block);

  /// The block that holds the address; null where there is none.
  std::shared_ptr<Block> find(std::uintptr_t address) const;

  /// The block that starts at the address; null where there is none.
  std::shared_ptr<Block> find_base(std::uintptr_t address) const;

  /// The blocks that cover the whole range, in order of address; empty where a byte of it is in no block.
  std::vector<std::shared_ptr<Block>> covering(std::uintptr_t address, std::size_t bytes) const;

  const Map& all() const { return by_base_; }
  void clear() { by_base_.clear(); }

 private:
  Map by_base_;
};

}  // namespace cenote::sim
