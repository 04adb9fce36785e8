#include "cenote/surface/region.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/quoted.hpp"
#include "cenote/surface/specification.hpp"

namespace cenote::inline v1 {
namespace {

struct named_region {
  std::string name;
  std::string specification;
  std::map<int, std::shared_ptr<memory_resource>> pools;  // by device
};

struct region_table {
  process_mutex mutex;  // guards the rest
  std::vector<named_region> regions;

  named_region* find_locked(const std::string& name) {
    const auto place = std::ranges::find(regions, name, &named_region::name);
    return place == regions.end() ? nullptr : &*place;
  }
};

region_table& all_regions() {
  static immortal<region_table> the_one;
  return *the_one;
}

[[maybe_unused]] const region_table& regions_made_while_there_is_one_thread = all_regions();

/// The text of which the region's pools are made.
std::string specification_of(const std::string& name, const std::string& asked) {
  region_table& table = all_regions();
  const std::lock_guard lock(table.mutex);
  const named_region* const known = table.find_locked(name);
  if (known == nullptr) return asked.empty() ? default_region_specification : asked;
  if (asked.empty() || asked == known->specification) return known->specification;
  throw std::invalid_argument("the region " + quoted(name, "") + " is '" + known->specification + "', not '" + asked +
                              "'");
}

std::shared_ptr<memory_resource> make_pool_of(const std::string& specification, int device) {
  auto made = make_resource(specification, device);
  auto* const pool = dynamic_cast<pool_memory_resource*>(made.get());
  if (pool != nullptr && pool->can_be_paused()) {
    pool->expect_pauses();
    return made;
  }
  throw std::invalid_argument("a region is a pool over virtual memory, as 'pool | virtual', not '" + specification +
                              "' on device " + std::to_string(device));
}

}  // namespace

std::shared_ptr<memory_resource> get_region(const std::string& name, int device, const std::string& specification) {
  if (name.empty()) throw std::invalid_argument("the name of a region cannot be empty");
  const std::string text = specification_of(name, specification);
  region_table& table = all_regions();
  {
    const std::lock_guard lock(table.mutex);
    if (const named_region* const known = table.find_locked(name)) {
      if (const auto pool = known->pools.find(device); pool != known->pools.end()) return pool->second;
    }
  }
  auto made = make_pool_of(text, device);  // which calls the driver; ends below if another thread was first
  const std::lock_guard lock(table.mutex);
  named_region* region = table.find_locked(name);
  if (region == nullptr) region = &table.regions.emplace_back(named_region{name, text, {}});
  return region->pools.try_emplace(device, std::move(made)).first->second;
}

std::vector<std::shared_ptr<memory_resource>> region_resources(const std::string& name) {
  region_table& table = all_regions();
  const std::lock_guard lock(table.mutex);
  const named_region* const region = table.find_locked(name);
  if (region == nullptr) throw std::invalid_argument("there is no region " + quoted(name, ""));
  std::vector<std::shared_ptr<memory_resource>> pools;
  for (const auto& [device, pool] : region->pools) pools.push_back(pool);
  return pools;
}

std::vector<std::shared_ptr<memory_resource>> region_resources_on(int device) {
  region_table& table = all_regions();
  const std::lock_guard lock(table.mutex);
  std::vector<std::shared_ptr<memory_resource>> pools;
  for (const named_region& each : table.regions) {
    if (const auto pool = each.pools.find(device); pool != each.pools.end()) pools.push_back(pool->second);
  }
  return pools;
}

std::vector<std::string> region_names() {
  region_table& table = all_regions();
  const std::lock_guard lock(table.mutex);
  std::vector<std::string> names;
  for (const named_region& each : table.regions) names.push_back(each.name);
  return names;
}

}  // namespace cenote::inline v1
