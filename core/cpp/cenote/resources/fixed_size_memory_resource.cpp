#include "cenote/resources/fixed_size_memory_resource.hpp"

#include <stdexcept>

namespace cenote::inline v1 {
namespace {

std::size_t checked_block_size(std::size_t bytes) {
  if (bytes == 0) throw std::invalid_argument("block_size must be at least 1 byte, not 0");
  if (bytes > max_allocation)
    throw std::invalid_argument("block_size is larger than any memory: " + spell_bytes(bytes));
  return align_up(bytes, default_alignment);
}

std::size_t bytes_of(std::size_t blocks, std::size_t block_size) {
  if (blocks <= max_allocation / block_size) return blocks * block_size;
  throw std::invalid_argument("blocks_to_preallocate asks for more than any memory has: " + std::to_string(blocks) +
                              " blocks of " + format_bytes(block_size));
}

}  // namespace

fixed_size_memory_resource::fixed_size_memory_resource(std::shared_ptr<memory_resource> upstream,
                                                       std::size_t block_size, std::size_t blocks_to_preallocate)
    : memory_resource(upstream, "fixed_size"),
      block_size_(checked_block_size(block_size)),
      blocks_to_preallocate_(blocks_to_preallocate),
      pool_(std::move(upstream), bytes_of(blocks_to_preallocate, block_size_)) {
  if (blocks_to_preallocate != 0) pool_.grow_in_steps_of(bytes_of(blocks_to_preallocate, block_size_));
}

std::string fixed_size_memory_resource::specification() const {
  return spell_specification(
      kind(), {"block_size=" + spell_bytes(block_size_), "preallocate=" + std::to_string(blocks_to_preallocate_)});
}

memory_state fixed_size_memory_resource::in_blocks(memory_state figures) const {
  if (figures.largest_free) figures.largest_free = *figures.largest_free >= block_size_ ? block_size_ : 0;
  return figures;
}

void* fixed_size_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return bytes > block_size_ ? nullptr : pool_.try_allocate(stream, block_size_, alignment);
}

void fixed_size_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t, std::size_t alignment) {
  pool_.deallocate(stream, pointer, block_size_, alignment);
}

}  // namespace cenote::inline v1
