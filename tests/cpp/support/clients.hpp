// The fixture for tests that allocate as a framework does: from the current resource, through the ledger.
#pragma once

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "cenote/surface/client.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/registry.hpp"
#include "support/any_device.hpp"

namespace cenote::test {

/// Every device starts and ends with the driver's plain memory as its resource.
class clients : public any_device {
 protected:
  void SetUp() override {
    reset_resources();
    // The reclaimers make their stream at first use and keep it for the process.
    for (int device = 0; device < device_count(); ++device) {
      void* const block = client_allocate(client_, device, 256, {});
      client_share(block);
      client_deallocate(block, {});
    }
    any_device::SetUp();
  }

  void TearDown() override {
    reset_resources();
    any_device::TearDown();
  }

  static void reset_resources() {
    for (int device = 0; device < device_count(); ++device) {
      set_per_device_resource(device, std::make_shared<cuda_memory_resource>(device));
    }
  }

  /// A capped pool, made current on device 0.
  static std::shared_ptr<pool_memory_resource> use_pool(std::size_t bytes) {
    auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), bytes, bytes);
    set_per_device_resource(0, pool);
    return pool;
  }

  static client_usage usage_of(const std::string& name) {
    for (const client_usage& u : usage()) {
      if (u.name == name) return u;
    }
    return {};
  }

  const client_index client_ = register_client("tests");
};

}  // namespace cenote::test
