// One block of another process's pool of the driver, mapped here.
//
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <span>

#include "cenote/driver/exported_pool_block.hpp"

struct CUmemPoolHandle_st;

namespace cenote::inline v1 {

class imported_pool_block {
 public:
  /// For its device and for `peers`. Throws cuda_error.
  imported_pool_block(int device, const exported_pool_block& exported, std::span<const int> peers);

  /// The work which used it is done.
  ~imported_pool_block();
  imported_pool_block(const imported_pool_block&) = delete;
  imported_pool_block& operator=(const imported_pool_block&) = delete;

  std::byte* address() const noexcept { return reinterpret_cast<std::byte*>(pointer_); }

 private:
  void end() noexcept;

  int device_;
  CUmemPoolHandle_st* pool_ = nullptr;  // of this block alone
  unsigned long long pointer_ = 0;
};

}  // namespace cenote::inline v1
