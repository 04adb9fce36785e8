// A block that the program holds, as the full allocator knows it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "torch_types.hpp"

namespace cenote::torch {

class private_pool;

struct live_block {
  std::size_t bytes = 0;      ///< as it was taken: a multiple of 512
  std::size_t requested = 0;  ///< as the program asked
  void* stream = nullptr;
  private_pool* pool = nullptr;  ///< null: from the current resource of its device
  mempool_id pool_id = {0, 0};
  c10::DeviceIndex device = 0;
  bool is_large = false;
  bool outlives_its_stream = false;    ///< the stream is not PyTorch's, and may be destroyed before the block is freed
  bool is_pending = false;             ///< freed, and still used on a stream that was recorded
  std::vector<cudaStream_t> recorded;  ///< streams of PyTorch's own on which it is used, too
  context stack;
};

}  // namespace cenote::torch
