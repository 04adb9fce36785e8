// The fixture for tests of containers: a counted pool on device 0, two streams, and nothing left allocated at the end.
#pragma once

#include <optional>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/any_device.hpp"

namespace cenote::test {

class containers : public any_device {
 protected:
  void SetUp() override {
    any_device::SetUp();
    const auto pool =
        std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 32 * MiB, 32 * MiB);
    resource_ = std::make_shared<statistics_resource_adaptor>(pool);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    EXPECT_EQ(resource_->counters().bytes.current, 0) << "freed once, with the bytes it was allocated with";
    EXPECT_EQ(resource_->counters().count.current, 0);
    resource_->check();
    a_.reset();
    b_.reset();
    resource_.reset();
    any_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  /// Blocks that are allocated now.
  std::int64_t blocks() const { return resource_->counters().count.current; }

  static bool is_aligned(const void* address, std::size_t alignment) {
    return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
  }

  std::shared_ptr<statistics_resource_adaptor> resource_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

}  // namespace cenote::test
