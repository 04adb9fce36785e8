// The functions that Python calls to put the full allocator into PyTorch's slot.
//
// PyTorch reads the slot (c10::cuda::CUDACachingAllocator::allocator) with each allocation, so that it may be replaced
// while a program runs: blocks carry the function that frees them.
#include <c10/core/Allocator.h>

#include <cstdint>
#include <exception>
#include <string>

#include "full_allocator.hpp"

namespace {

using cenote::torch::cuda_allocator;
using cenote::torch::full_allocator;

full_allocator* ours = nullptr;  // guarded by the GIL of its callers
std::string failure;

template <class Body>
int guarded(Body&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    failure = error.what();
    return -1;
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const char* cenote_torch_full_failure() { return failure.c_str(); }

/// 0, or -1: then nothing has changed. Does nothing if it is installed already.
__attribute__((visibility("default"))) int cenote_torch_full_install() {
  return guarded([] {
    if (ours == nullptr) {
      cuda_allocator* const native = c10::cuda::CUDACachingAllocator::allocator.load();
      TORCH_CHECK(native != nullptr, "PyTorch has no CUDA allocator");
      ours = new full_allocator(native);  // never destroyed: tensors may outlive everything
    }
    ours->turn_on(true);
    c10::cuda::CUDACachingAllocator::allocator.store(ours);
    c10::SetAllocator(c10::DeviceType::CUDA, ours, 0);
  });
}

/// New blocks are PyTorch's own from now on; those of cenote go back to it.
__attribute__((visibility("default"))) int cenote_torch_full_uninstall() {
  return guarded([] {
    if (ours != nullptr) ours->turn_on(false);
  });
}

__attribute__((visibility("default"))) int cenote_torch_full_is_on() {
  return ours != nullptr && ours->is_on() ? 1 : 0;
}

/// The set of pages (graph_pages.hpp) that captures of this thread join from now on, 0 for none; returns the previous
/// one.
__attribute__((visibility("default"))) std::int64_t cenote_torch_full_join_pages(std::int64_t set) {
  return cenote::torch::graph_pages::join(set);
}

/// The set that the pool of that number has joined, 0 for none.
__attribute__((visibility("default"))) std::int64_t cenote_torch_full_pages_of(std::uint64_t first,
                                                                               std::uint64_t second) {
  return ours != nullptr ? ours->pools().set_of({first, second}) : 0;
}

__attribute__((visibility("default"))) std::uint64_t cenote_torch_full_bytes_of_pages(std::int64_t set) {
  return ours != nullptr ? ours->pools().set_bytes(set) : 0;
}

}  // extern "C"
