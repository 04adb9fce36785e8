// Regions: parts of a program's memory that lie on pages of their own, so that each can be paused by itself.
//
//     const cenote::region_scope scope("weights", 0);     until the end of the scope, on this thread
//
//     region "weights"   device 0: pool | virtual     device 1: pool | virtual
//     region "cache"     device 0: pool | virtual                                  no page has blocks of two regions
//
//   1. A region has a pool over virtual memory on each device that it is used on, made when it is first used there.
//   2. A scope makes that the current resource of its device for its thread (resource_scope.hpp).
//   3. A region is never destroyed. One that nobody uses holds no memory once it was trimmed, and other pools take what
//      lies idle in it.
//
// A tag (tag.hpp) is only a label; a region is a place.
//
// Threads: all functions from any thread; a scope is one thread's, as resource_scope. Cost: that of a resource_scope.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/resource_scope.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// The resource of a region for which none was named.
constexpr const char* default_region_specification = "pool | virtual";

/// The region's pool on `device`, made if there is none yet: from `specification` where the region is new, and as its
/// other pools where that is empty. std::invalid_argument for an empty name, for a specification that is wrong or no
/// pool over virtual memory, or for another one than the region has.
CENOTE_EXPORT std::shared_ptr<memory_resource> get_region(const std::string& name, int device,
                                                          const std::string& specification = {});

/// The pools of a region, in order of device. std::invalid_argument where there is no such region.
CENOTE_EXPORT std::vector<std::shared_ptr<memory_resource>> region_resources(const std::string& name);

/// Those of all regions on one device.
CENOTE_EXPORT std::vector<std::shared_ptr<memory_resource>> region_resources_on(int device);

/// The regions that there are, in the order in which they were made.
CENOTE_EXPORT std::vector<std::string> region_names();

class CENOTE_EXPORT region_scope {
 public:
  /// As get_region.
  region_scope(const std::string& name, int device) : scope_(get_region(name, device)) {}

  /// As resource_scope.
  bool is_innermost() const noexcept { return scope_.is_innermost(); }

 private:
  resource_scope scope_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
