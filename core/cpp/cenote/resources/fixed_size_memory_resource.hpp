// Blocks of one size: whatever is asked for, up to that size, a whole block is handed out.
//
// Freeing one always makes room for the next, whatever the order: there is nothing to fragment. Blocks are those of a
// pool (pool_memory_resource.hpp), which orders streams and takes memory from the upstream, many blocks at once.
#pragma once

#include <memory>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class fixed_size_memory_resource final : public memory_resource {
 public:
  static constexpr std::size_t default_block_size = 1 * MiB;
  static constexpr std::size_t default_blocks_to_preallocate = 128;

  /// `block_size` in bytes, rounded up to 256; std::invalid_argument if it is 0. The memory of `blocks_to_preallocate`
  /// blocks is taken at once, and of as many again whenever they are all in use; with 0, memory is taken as needed.
  explicit fixed_size_memory_resource(std::shared_ptr<memory_resource> upstream,
                                      std::size_t block_size = default_block_size,
                                      std::size_t blocks_to_preallocate = default_blocks_to_preallocate);

  std::size_t block_size() const noexcept { return block_size_; }
  const pool_memory_resource& pool() const noexcept { return pool_; }

  std::string kind() const override { return "fixed_size"; }
  std::string specification() const override;
  std::shared_ptr<memory_resource> upstream() const override { return pool_.upstream(); }
  bool is_stream_ordered() const noexcept override { return true; }
  memory_state state() const override { return in_blocks(pool_.state()); }

  /// As pool_memory_resource's.
  memory_state own_state() const { return in_blocks(pool_.own_state()); }
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override { return pool_.trim(keep_bytes, wait); }
  void check() const override { pool_.check(); }

 private:
  /// Null, that is out of memory, for more than a block.
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  memory_state in_blocks(memory_state figures) const;

  std::size_t block_size_;
  std::size_t blocks_to_preallocate_;
  pool_memory_resource pool_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
