// The functions that torch.cuda.memory.CUDAPluggableAllocator calls: PyTorch's way into the current memory resource.
//
// They are called from any thread, with and without the GIL, and also while the interpreter finalizes: nothing here
// knows Python. PyTorch does not look at a null pointer for a size above 0, so that allocate throws; PyTorch turns it
// into a Python exception with this text. Libraries that retry look for its first four words. An interrupt (Ctrl-C)
// that a Python function under the current resource has raised would become a RuntimeError: it is raised once more
// behind that.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/cenote.h"
#include "cenote/ground/error.hpp"
#include "cenote/ground/foreign_exception.hpp"
#include "out_of_memory.hpp"

struct CUstream_st;

namespace {

/// How PyTorch tells a capture's streams.
using stream_filter = std::function<bool(CUstream_st*)>;

/// cenote's functions; std::runtime_error beside a library that is not the one this was compiled for.
const cenote_api& api() {
  static const cenote_api* const functions = cenote_get_api(CENOTE_ABI_VERSION);
  if (functions == nullptr) throw std::runtime_error(cenote_last_error());
  return *functions;
}

int client() {
  static const int index = api().register_client("torch");
  return index;
}

void require(bool succeeded) {
  if (!succeeded) throw std::runtime_error(api().last_error());
}

}  // namespace

extern "C" {

CENOTE_API void* cenote_torch_allocate(std::size_t bytes, int device, void* stream) {
  try {
    return api().allocate_or_throw(client(), device, bytes, stream);
  } catch (const cenote::out_of_memory& error) {
    cenote::torch::throw_out_of_memory(std::string("CUDA out of memory. ") + error.what());
  } catch (const cenote::foreign_exception& interrupt) {
    interrupt.raise_later();
    throw;
  }
}

/// A segment for torch.cuda.MemPool, which takes null for "no memory", as it asks under a lock of PyTorch's.
CENOTE_API void* cenote_torch_allocate_segment(std::size_t bytes, int device, void* stream) {
  try {
    return api().allocate(client(), device, bytes, stream);
  } catch (const std::runtime_error&) {  // another library than this was compiled for: install() has said so
    return nullptr;
  }
}

CENOTE_API void cenote_torch_deallocate(void* pointer, std::size_t, int, void* stream) {
  api().deallocate(pointer, stream);
}

/// Tensor.record_stream
CENOTE_API void cenote_torch_record_stream(void* pointer, void* stream) {
  require(api().record_stream(pointer, stream) == 0);
}

/// torch.cuda.empty_cache: of every device, after all work that uses it, as torch's own allocator does.
CENOTE_API void cenote_torch_empty_cache() {
  for (int device = 0; device < api().device_count(); ++device) require(api().trim_to(device, 0, 1) >= 0);
}

/// A graph capture begins and ends. The two numbers are the pool's id; the filter knows the capture's streams.
CENOTE_API void cenote_torch_begin_allocate_to_pool(int device, std::uint64_t first, std::uint64_t second,
                                                    stream_filter takes) {
  auto kept = std::make_unique<stream_filter>(std::move(takes));
  const auto ask = [](void* filter, void* stream) -> int {
    return (*static_cast<stream_filter*>(filter))(static_cast<CUstream_st*>(stream)) ? 1 : 0;
  };
  const auto drop = [](void* filter) { delete static_cast<stream_filter*>(filter); };
  require(api().graph_pool_begin_if(device, first, second, ask, kept.get(), drop) == 0);
  static_cast<void>(kept.release());  // drop() has it from now on
}

CENOTE_API void cenote_torch_end_allocate_to_pool(int device, std::uint64_t first, std::uint64_t second) {
  require(api().graph_pool_end(device, first, second) == 0);
}

/// A graph is gone. Called by destructors. A pool that is not known was begun before cenote was asked.
CENOTE_API void cenote_torch_release_pool(int device, std::uint64_t first, std::uint64_t second) noexcept {
  static_cast<void>(api().graph_pool_release(device, first, second));  // begun by api(), which is there
}

}  // extern "C"
