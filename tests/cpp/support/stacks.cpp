#include "support/stacks.hpp"

#include <unistd.h>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"
#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"
#include "cenote/adaptors/guard_resource_adaptor.hpp"
#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/logging_resource_adaptor.hpp"
#include "cenote/adaptors/prefetch_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"
#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "cenote/resources/cuda_async_managed_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_async_view_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/sam_headroom_memory_resource.hpp"
#include "cenote/resources/system_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"

namespace cenote::test {
namespace {

/// Owns the pool that it views, which a view does not.
struct owned_view {
  explicit owned_view(int device) : pool(device, {}), view(device, pool.pool_handle()) {}
  cuda_async_memory_resource pool;
  cuda_async_view_memory_resource view;
};

/// What takes its memory from the driver.
template <class Resource>
resource_ptr on_device(resource_ptr, int device) {
  return std::make_shared<Resource>(device);
}

template <class Adaptor>
resource_ptr over(resource_ptr upstream, int) {
  return std::make_shared<Adaptor>(std::move(upstream));
}

resource_ptr make_async(resource_ptr, int device) {
  return std::make_shared<cuda_async_memory_resource>(device, cuda_async_memory_resource::options{});
}

const std::vector<part>& bases() {
  static const std::vector<part> all = {
      {"cuda", "cuda", on_device<cuda_memory_resource>, false, false},
      {"managed", "managed", on_device<managed_memory_resource>, false, true},
      {"pinned", "pinned", on_device<pinned_host_memory_resource>, false, true},
      {"virtual", "virtual", on_device<virtual_memory_resource>, false, false},
      {"system", "system", on_device<system_memory_resource>, false, true, true, need::pageable_access},
      {"sam_headroom", "sam_headroom",
       [](resource_ptr, int device) { return std::make_shared<sam_headroom_memory_resource>(device, 64 * MiB); }, false,
       true, true, need::pageable_access},
      {"async", "async", make_async, true, false},
      {"async_that_releases", "async",
       [](resource_ptr, int device) {
         cuda_async_memory_resource::options options;
         options.initial_pool_size = 4 * MiB;
         options.release_threshold = 0;
         return std::make_shared<cuda_async_memory_resource>(device, options);
       },
       true, false},
      {"async_view", "async_view",
       [](resource_ptr, int device) {
         const auto owned = std::make_shared<owned_view>(device);
         return resource_ptr(owned, &owned->view);
       },
       true, false, false},
      {"async_managed", "async_managed", on_device<cuda_async_managed_memory_resource>, true, true, true,
       need::managed_pool},
      {"callback", "callback",
       [](resource_ptr, int device) {
         const auto source =
             std::make_shared<cuda_async_memory_resource>(device, cuda_async_memory_resource::options{});
         return std::make_shared<callback_memory_resource>(
             device, [=](stream_ref stream, std::size_t bytes) { return source->try_allocate(stream, bytes); },
             [=](stream_ref stream, void* pointer, std::size_t bytes) { source->deallocate(stream, pointer, bytes); });
       },
       true, false, false},
  };
  return all;
}

resource_ptr make_bins(resource_ptr upstream, int) {
  const auto binning = std::make_shared<binning_memory_resource>(upstream, 8, 16);
  binning->add_bin(1 * MiB, std::make_shared<pool_memory_resource>(upstream, 0));
  return binning;
}

/// Pools and the like, which need an upstream, and adaptors.
const std::vector<part>& overs() {
  static const std::vector<part> all = {
      {"pool", "pool",
       [](resource_ptr upstream, int) { return std::make_shared<pool_memory_resource>(std::move(upstream), 4 * MiB); },
       true},
      {"capped_pool", "pool",
       [](resource_ptr upstream, int) {
         return std::make_shared<pool_memory_resource>(std::move(upstream), 0, 32 * MiB);
       },
       true},
      {"arena", "arena",
       [](resource_ptr upstream, int) {
         return std::make_shared<arena_memory_resource>(std::move(upstream), 32 * MiB);
       },
       true},
      {"fixed_size", "fixed_size",
       [](resource_ptr upstream, int) {
         return std::make_shared<fixed_size_memory_resource>(std::move(upstream), largest, 2);
       },
       true},
      {"fixed_size_on_demand", "fixed_size",
       [](resource_ptr upstream, int) {
         return std::make_shared<fixed_size_memory_resource>(std::move(upstream), largest, 0);
       },
       true},
      {"binning", "binning", make_bins, true, {}, false},
      {"binning_without_bins", "binning", over<binning_memory_resource>},
      {"statistics", "statistics", over<statistics_resource_adaptor>},
      {"logging", "logging",
       [](resource_ptr upstream, int) {
         return std::make_shared<logging_resource_adaptor>(std::move(upstream), log_file(""));
       }},
      {"tracking", "tracking", over<tracking_resource_adaptor>},
      {"tracking_with_stacks", "tracking",
       [](resource_ptr upstream, int) {
         return std::make_shared<tracking_resource_adaptor>(std::move(upstream), true);
       }},
      {"limiting", "limiting",
       [](resource_ptr upstream, int) {
         return std::make_shared<limiting_resource_adaptor>(std::move(upstream), 2 * exhaustible);
       }},
      {"failure_callback",
       "failure_callback",
       [](resource_ptr upstream, int) {
         return std::make_shared<failure_callback_resource_adaptor>(
             std::move(upstream), [](std::size_t, stream_ref, std::size_t) { return false; });
       },
       {},
       {},
       false},
      {"prefetch", "prefetch", over<prefetch_resource_adaptor>},
      {"guard", "guard", over<guard_resource_adaptor>},
      {"aligned", "aligned",
       [](resource_ptr upstream, int) {
         return std::make_shared<aligned_resource_adaptor>(std::move(upstream), 4096, 1000);
       }},
      {"thread_safe", "thread_safe", over<thread_safe_resource_adaptor>},
  };
  return all;
}

const part* find_part(const std::string& name) {
  for (const auto* parts : {&bases(), &overs()}) {
    for (const part& p : *parts) {
      if (p.name == name) return &p;
    }
  }
  throw std::invalid_argument("the table has no part '" + name + "'");
}

stack make_stack(std::initializer_list<const char*> names) {
  stack made;
  for (const char* name : names) made.parts.push_back(find_part(name));
  return made;
}

}  // namespace

std::string log_file(const char* device) {
  return testing::TempDir() + "cenote_conformance_" + std::to_string(getpid()) + device + ".csv";
}

std::string stack::missing(int device) const {
  const bool is_concurrent = device_has_concurrent_managed_access(device);
  switch (parts.back()->needs) {
    case need::pageable_access:
      return device_has_pageable_memory_access(device) ? "" : "the device has no pageable memory access";
    case need::managed_pool:
      if (usable_cuda_version() < 13000) return "pools of managed memory came with CUDA 13.0";
      return is_concurrent ? "" : "the device has no concurrent managed access";
    case need::nothing:
      break;
  }
  return "";
}

resource_ptr stack::make(int device, const std::function<resource_ptr(resource_ptr)>& above_base) const {
  resource_ptr made = parts.back()->make(nullptr, device);
  if (above_base) made = above_base(std::move(made));
  for (auto p = std::next(parts.rbegin()); p != parts.rend(); ++p) made = (*p)->make(std::move(made), device);
  return made;
}

std::vector<stack> every_part() {
  std::vector<stack> all;
  for (const part& base : bases()) all.push_back({{&base}});
  for (const part& p : overs()) all.push_back({{&p, find_part("cuda")}});
  return all;
}

std::vector<stack> every_stack() {
  std::vector<stack> all = every_part();
  for (const part& p : overs()) {
    all.push_back({{&p, find_part("pool"), find_part("cuda")}});
    all.push_back({{&p, find_part("async")}});
  }
  for (const part& base : bases()) {
    const bool is_there = std::string(base.name) == "cuda" || std::string(base.name) == "async";
    if (!is_there) all.push_back({{find_part("pool"), &base}});
  }
  all.insert(all.end(), {make_stack({"arena", "pinned"}), make_stack({"binning", "pinned"}),
                         make_stack({"binning", "pool", "managed"}), make_stack({"prefetch", "managed"}),
                         make_stack({"prefetch", "pool", "managed"}), make_stack({"aligned", "prefetch", "managed"}),
                         make_stack({"logging", "statistics", "pool", "statistics", "pool", "async"}),
                         make_stack({"thread_safe", "aligned", "prefetch", "failure_callback", "tracking", "logging",
                                     "statistics", "limiting", "pool", "cuda"}),
                         make_stack({"statistics", "limiting", "binning", "pool", "pinned"})});
  return all;
}

}  // namespace cenote::test
