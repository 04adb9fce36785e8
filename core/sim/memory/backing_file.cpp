#include "sim/memory/backing_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "sim/ground/failure.hpp"

namespace cenote::sim {
namespace {

constexpr std::size_t most_at_a_time = std::size_t{2} << 20;

}  // namespace

std::shared_ptr<const backing_file> backing_file::make(std::size_t bytes) {
  const int file = memfd_create("cenote_sim", MFD_CLOEXEC);
  require(file >= 0, CUDA_ERROR_OUT_OF_MEMORY);
  std::shared_ptr<const backing_file> made(new backing_file(file));
  require(ftruncate(file, static_cast<off_t>(bytes)) == 0, CUDA_ERROR_OUT_OF_MEMORY);
  return made;
}

std::shared_ptr<const backing_file> backing_file::open(int descriptor) {
  const int file = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  require(file >= 0);
  return std::shared_ptr<const backing_file>(new backing_file(file));
}

backing_file::~backing_file() { close(file_); }

std::size_t backing_file::bytes() const {
  struct stat found{};
  require(fstat(file_, &found) == 0);
  return static_cast<std::size_t>(found.st_size);
}

int backing_file::new_descriptor() const {
  const int descriptor = fcntl(file_, F_DUPFD_CLOEXEC, 0);
  require(descriptor >= 0, CUDA_ERROR_OUT_OF_MEMORY);
  return descriptor;
}

void backing_file::write(std::uintptr_t offset, const void* source, std::size_t bytes) const {
  require(pwrite(file_, source, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes),
          CUDA_ERROR_OUT_OF_MEMORY);
}

bool backing_file::read(std::uintptr_t offset, void* target, std::size_t bytes) const {
  return pread(file_, target, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
}

void backing_file::fill(std::uintptr_t offset, std::size_t bytes, unsigned char with) const {
  const std::vector<unsigned char> part(std::min(bytes, most_at_a_time), with);
  for (std::size_t done = 0; done < bytes; done += part.size()) {
    write(offset + done, part.data(), std::min(part.size(), bytes - done));
  }
}

void backing_file::show(std::uintptr_t address, std::size_t bytes, std::uintptr_t offset, bool usable) const {
  void* const at = reinterpret_cast<void*>(address);
  constexpr int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
  const int protection = usable ? PROT_READ | PROT_WRITE : PROT_NONE;
  require(mmap(at, bytes, protection, flags, file_, static_cast<off_t>(offset)) == at, CUDA_ERROR_OUT_OF_MEMORY);
}

void backing_file::punch(std::uintptr_t offset, std::size_t bytes) const {
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes));
}

}  // namespace cenote::sim
