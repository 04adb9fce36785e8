#include "sim/memory/physical_memory.hpp"

#include "sim/ground/failure.hpp"

namespace cenote::sim {

std::uintptr_t physical_memory::take(std::size_t bytes) {
  if (!file_) {
    file_ = backing_file::make(file_bytes);
    free_.insert(0, file_bytes);
  }
  const auto offset = free_.take(bytes);
  require(offset.has_value(), CUDA_ERROR_OUT_OF_MEMORY);
  return *offset;
}

void physical_memory::give_back(std::uintptr_t offset, std::size_t bytes) {
  file_->punch(offset, bytes);
  free_.insert(offset, bytes);
}

physical_memory& memory_of_cards() {
  static physical_memory* const memory = new physical_memory;
  return *memory;
}

}  // namespace cenote::sim
