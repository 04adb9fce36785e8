// A resource of RMM's that draws from the current resource of cenote on a device, whatever that is at the time.
//
// Compiled on the user's machine against the librmm that is installed (cenote build rmm), as the names in RMM's C++ and
// the layout of CCCL's resources differ from version to version.
//
// Threads: any. Cost: what the C ABI costs, two short locks.
#pragma once

#include <cstddef>
#include <cuda/memory_resource>
#include <cuda/stream_ref>
#include <new>
#include <rmm/aligned.hpp>
#include <rmm/error.hpp>
#include <string>

#include "cenote/cenote.h"

namespace cenote_rmm {

class current_resource {
 public:
  current_resource(int client, int device) : client_(client), device_(device) {}

  /// rmm::out_of_memory, with cenote's figures, if there is none; rmm::bad_alloc for an alignment above RMM's own.
  void* allocate(cuda::stream_ref stream, std::size_t bytes, std::size_t alignment = rmm::CUDA_ALLOCATION_ALIGNMENT) {
    check(alignment);
    void* const pointer = cenote_allocate(client_, device_, bytes, stream.get());
    return pointer == nullptr && bytes != 0 ? failed() : pointer;
  }

  void deallocate(cuda::stream_ref stream, void* pointer, std::size_t /*bytes*/,
                  std::size_t /*alignment*/ = rmm::CUDA_ALLOCATION_ALIGNMENT) noexcept {
    cenote_deallocate(pointer, stream.get());
  }

  void* allocate_sync(std::size_t bytes, std::size_t alignment = rmm::CUDA_ALLOCATION_ALIGNMENT) {
    check(alignment);
    void* const pointer = cenote_allocate_sync(client_, device_, bytes);
    return pointer == nullptr && bytes != 0 ? failed() : pointer;
  }

  void deallocate_sync(void* pointer, std::size_t /*bytes*/,
                       std::size_t /*alignment*/ = rmm::CUDA_ALLOCATION_ALIGNMENT) noexcept {
    cenote_deallocate_sync(pointer);
  }

  friend bool operator==(const current_resource& a, const current_resource& b) noexcept {
    return a.device_ == b.device_;
  }
  friend bool operator!=(const current_resource& a, const current_resource& b) noexcept { return !(a == b); }

  friend constexpr void get_property(const current_resource&, cuda::mr::device_accessible) noexcept {}

 private:
  static void check(std::size_t alignment) {
    if (alignment > rmm::CUDA_ALLOCATION_ALIGNMENT) {
      throw rmm::bad_alloc("cenote: an alignment of " + std::to_string(alignment) +
                           " needs an aligned_resource_adaptor");
    }
  }

  [[noreturn]] static void* failed() {
    if (cenote_last_status() == CENOTE_OUT_OF_MEMORY) throw rmm::out_of_memory(cenote_last_error());
    throw rmm::bad_alloc(cenote_last_error());
  }

  int client_;
  int device_;
};

}  // namespace cenote_rmm
