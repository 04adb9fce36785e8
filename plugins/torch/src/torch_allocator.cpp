// The functions that torch.cuda.memory.CUDAPluggableAllocator calls: PyTorch's way into the current memory resource.
//
// They are called from any thread, with and without the GIL, and also while the interpreter finalizes: nothing here
// knows Python. PyTorch does not look at a null pointer for a size above 0, so that allocate throws; PyTorch turns it
// into a Python exception with this text. Libraries that retry look for its first four words.
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

#include "cenote/cenote.h"
#include "cenote/ground/error.hpp"
#include "out_of_memory.hpp"

namespace {

int client() {
  static const int index = cenote_register_client("torch");
  return index;
}

}  // namespace

extern "C" {

CENOTE_API void* cenote_torch_allocate(std::size_t bytes, int device, void* stream) {
  try {
    return cenote_allocate_or_throw(client(), device, bytes, stream);
  } catch (const cenote::out_of_memory& error) {
    cenote::torch::throw_out_of_memory(std::string("CUDA out of memory. ") + error.what());
  }
}

CENOTE_API void cenote_torch_deallocate(void* pointer, std::size_t, int, void* stream) {
  cenote_deallocate(pointer, stream);
}

/// Tensor.record_stream
CENOTE_API void cenote_torch_record_stream(void* pointer, void* stream) {
  if (cenote_record_stream(pointer, stream) != 0) throw std::runtime_error(cenote_last_error());
}

/// torch.cuda.empty_cache: of every device.
CENOTE_API void cenote_torch_empty_cache() {
  for (int device = 0; device < cenote_device_count(); ++device) {
    if (cenote_trim(device) < 0) throw std::runtime_error(cenote_last_error());
  }
}

/// A graph capture, or torch.cuda.use_mem_pool, begins and ends. The two numbers are the pool's id; the last argument
/// of the first function, a std::function that says which streams take part, is not needed to hold frees back.
CENOTE_API void cenote_torch_begin_allocate_to_pool(int device, std::uint64_t, std::uint64_t, void*) {
  cenote_capture_begin(device);
}

CENOTE_API void cenote_torch_end_allocate_to_pool(int device, std::uint64_t, std::uint64_t) {
  cenote_capture_end(device);
}

}  // extern "C"
