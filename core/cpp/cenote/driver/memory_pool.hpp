// A pool of the driver's own (CUmemoryPool): stream-ordered allocation, owned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cenote/driver/stream.hpp"

struct CUmemPoolHandle_st;

namespace cenote {

/// How memory of the pool may be shared with other processes.
struct export_handles {
  bool posix_file_descriptor = false;
  bool fabric = false;
};

class memory_pool {
 public:
  /// `release_threshold`: bytes that the pool keeps when the device is synchronised.
  memory_pool(int device, std::uint64_t release_threshold, export_handles handles);
  ~memory_pool();
  memory_pool(const memory_pool&) = delete;
  memory_pool& operator=(const memory_pool&) = delete;

  /// Null when memory ran out; throws cuda_error for any other failure.
  void* allocate(stream_ref stream, std::size_t bytes);
  void free(stream_ref stream, void* pointer) noexcept;

  std::size_t used_bytes() const;
  std::size_t reserved_bytes() const;

  /// Gives memory back to the device until at most `keep_bytes` are held, as far as it is unused.
  void trim(std::size_t keep_bytes);

  CUmemPoolHandle_st* value() const noexcept { return handle_; }
  int device() const noexcept { return device_; }

 private:
  CUmemPoolHandle_st* handle_ = nullptr;
  int device_;
};

}  // namespace cenote
