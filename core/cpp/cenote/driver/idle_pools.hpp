// Driver pools that nobody uses at present. They hold no memory, and wait to be used again.
//
// The driver may crash when a pool is destroyed while other threads allocate, free or synchronise, on whatever pools
// (decision 0008). So a pool that nobody else knows of is not destroyed.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

struct CUmemPoolHandle_st;

namespace cenote {

/// Those of one device, which all have the same properties. From any thread.
class idle_pools {
 public:
  static idle_pools& of(int device);

  std::size_t size() const noexcept;

  /// Null where there is none.
  CUmemPoolHandle_st* take() noexcept;

  /// Whether it could be kept: host memory may be short.
  bool keep(CUmemPoolHandle_st* empty) noexcept;

 private:
  mutable std::mutex mutex_;  // guards `idle_`
  std::vector<CUmemPoolHandle_st*> idle_;
};

}  // namespace cenote
