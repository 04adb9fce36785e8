// A file in memory (memfd) that stands for memory of cards: ranges of it are shown at addresses.
//
// Threads: guarded by driver_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace cenote::sim {

class backing_file {
 public:
  /// Throws failure(CUDA_ERROR_OUT_OF_MEMORY) where the host has no such file.
  static std::shared_ptr<const backing_file> make(std::size_t bytes);

  /// Another process's, by a descriptor that stays the caller's. Throws failure(CUDA_ERROR_INVALID_VALUE).
  static std::shared_ptr<const backing_file> open(int descriptor);

  ~backing_file();
  backing_file(const backing_file&) = delete;

  std::size_t bytes() const;

  /// For another process. Throws failure(CUDA_ERROR_OUT_OF_MEMORY) where there are no descriptors left.
  int new_descriptor() const;

  /// Throws failure.
  void write(std::uintptr_t offset, const void* source, std::size_t bytes) const;

  /// False where the file has no such bytes.
  bool read(std::uintptr_t offset, void* target, std::size_t bytes) const;

  /// Overwrites the range. Throws failure.
  void fill(std::uintptr_t offset, std::size_t bytes, unsigned char with) const;

  /// Shows the range at the address, where nothing may touch it unless `usable`. Throws failure.
  void show(std::uintptr_t address, std::size_t bytes, std::uintptr_t offset, bool usable = false) const;

  /// The range's contents are lost, and take no memory any more.
  void punch(std::uintptr_t offset, std::size_t bytes) const;

 private:
  explicit backing_file(int descriptor) : file_(descriptor) {}

  int file_;
};

}  // namespace cenote::sim
