#include "sim/memory/physical_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "sim/ground/failure.hpp"

namespace cenote::sim {

std::uintptr_t physical_memory::take(std::size_t bytes) {
  if (file_ < 0) {
    file_ = memfd_create("cenote_sim", MFD_CLOEXEC);
    require(file_ >= 0 && ftruncate(file_, static_cast<off_t>(file_bytes)) == 0, CUDA_ERROR_OUT_OF_MEMORY);
    free_.insert(0, file_bytes);
  }
  const auto offset = free_.take(bytes);
  require(offset.has_value(), CUDA_ERROR_OUT_OF_MEMORY);
  return *offset;
}

void physical_memory::give_back(std::uintptr_t offset, std::size_t bytes) {
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  free_.insert(offset, bytes);
}

void physical_memory::fill(std::uintptr_t offset, std::size_t bytes, unsigned char with) const {
  const std::vector<unsigned char> part(std::min(bytes, granularity), with);
  for (std::size_t done = 0; done < bytes; done += part.size()) {
    const std::size_t size = std::min(part.size(), bytes - done);
    const auto written = pwrite(file_, part.data(), size, static_cast<off_t>(offset + done));
    require(written == static_cast<ssize_t>(size), CUDA_ERROR_OUT_OF_MEMORY);
  }
}

void physical_memory::show(std::uintptr_t address, std::size_t bytes, std::uintptr_t offset) const {
  void* const at = reinterpret_cast<void*>(address);
  constexpr int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
  require(mmap(at, bytes, PROT_NONE, flags, file_, static_cast<off_t>(offset)) == at, CUDA_ERROR_OUT_OF_MEMORY);
}

physical_memory& memory_of_cards() {
  static physical_memory* const memory = new physical_memory;
  return *memory;
}

}  // namespace cenote::sim
