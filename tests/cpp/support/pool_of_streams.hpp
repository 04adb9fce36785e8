// A pool that streams share, and two of them.
#pragma once

#include <memory>
#include <optional>

#include "cenote/driver/aside_stream.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {

class pool_streams : public simulated_device {
 public:
  // All of the pool is handed out in blocks that are each worth a mark (more than a thirty-second of it), so that what
  // one stream gets must be what another has freed.
  static constexpr std::size_t unit = 128 * KiB;
  static constexpr std::size_t pool_bytes = 32 * unit;
  static constexpr std::size_t block_bytes = 31 * unit;

  void SetUp() override {
    aside_stream(0);  // kept for the process
    simulated_device::SetUp();
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), pool_bytes, maximum());
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    introduction_ = pool_->allocate(b(), 1 * unit);  // the pool has met B before A frees
  }

  void TearDown() override {
    pool_->check();
    pool_->deallocate(b(), introduction_, 1 * unit);
    a_.reset();
    b_.reset();
    pool_.reset();
    simulated_device::TearDown();
  }

  virtual std::size_t maximum() const { return pool_bytes; }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
  void* introduction_ = nullptr;
};

}  // namespace cenote::test
