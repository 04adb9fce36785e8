// One piece of memory that the simulated driver knows, and the map in which a pointer is looked up.
//
// A block of a pool lives longer than its address looks: cuMemFreeAsync makes it `freeing` at once, for the program,
// and `dead` when the free has run in its stream. Work that was queued before keeps the block itself (not the address),
// so that a copy which runs after the free is recognised even when the address has been handed out again.
//
// Invariants: I1 blocks of the map do not overlap; I2 no block of the map is dead or freeing.
// Threads: guarded by driver_mutex(). Cost: find is O(log blocks).
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "sim/ground/made.hpp"
#include "sim/ground/settings.hpp"

namespace cenote::sim {

struct simulated_device;
struct captured_graph;
class simulated_pool;
struct physical_piece;

enum class block_kind { device, pinned, managed, pooled, pooled_pinned, pooled_managed, graph_owned, mapped };
enum class block_state { live, freeing, dead };

struct memory_block {
  std::uintptr_t base;
  std::size_t bytes;  ///< as asked for
  std::size_t held;   ///< as taken from the device, the pool or the address space
  block_kind kind;
  simulated_device* device;
  std::shared_ptr<simulated_pool> pool;      ///< pooled blocks of all three kinds
  std::shared_ptr<physical_piece> physical;  ///< mapped blocks
  std::bitset<max_devices> open_to{};        ///< mapped blocks: cards whose work may touch it, by ordinal
  block_state state = block_state::live;
  bool is_registered = false;  ///< pinned memory that is the host's own
  const char* ended_by = "";   ///< the call that freed, unmapped or sealed it
  creation made = made_now();

  bool in_context() const {
    return kind == block_kind::device || kind == block_kind::pinned || kind == block_kind::managed;
  }
  bool pinned() const { return kind == block_kind::pinned || kind == block_kind::pooled_pinned; }
  bool managed() const { return kind == block_kind::managed || kind == block_kind::pooled_managed; }
  bool host_visible() const { return pinned() || managed(); }
};

class block_map {
 public:
  using map = std::map<std::uintptr_t, std::shared_ptr<memory_block>>;

  std::shared_ptr<memory_block> insert(memory_block block);
  void remove(const memory_block& block);

  /// The block that holds the address; null where there is none.
  std::shared_ptr<memory_block> find(std::uintptr_t address) const;

  /// The block that starts at the address; null where there is none.
  std::shared_ptr<memory_block> find_base(std::uintptr_t address) const;

  /// The blocks that cover the whole range, in order of address; empty where a byte of it is in no block.
  std::vector<std::shared_ptr<memory_block>> covering(std::uintptr_t address, std::size_t bytes) const;

  /// Whether a byte of the range is in a block.
  bool overlaps(std::uintptr_t address, std::size_t bytes) const;

  const map& all() const { return by_base_; }
  void clear() { by_base_.clear(); }

 private:
  map by_base_;
};

/// The blocks that the driver knows.
block_map& live_blocks();

}  // namespace cenote::sim
