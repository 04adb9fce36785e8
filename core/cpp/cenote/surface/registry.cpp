#include "cenote/surface/registry.hpp"

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/surface/resource_place.hpp"
#include "cenote/surface/scope_place.hpp"
#include "cenote/surface/specification.hpp"

namespace cenote::inline v1 {
namespace {

using resource_ptr = std::shared_ptr<memory_resource>;

constexpr const char* default_variable = "CENOTE_RESOURCE";

constinit std::array<resource_place, max_devices> places;

[[noreturn]] CENOTE_COLD void refuse_device(int device) {
  throw std::out_of_range("there is no device " + std::to_string(device));
}

CENOTE_HOT resource_place& place_of(int device) {
  if (device < 0 || device >= max_devices) refuse_device(device);
  return places[static_cast<std::size_t>(device)];
}

/// Where what is current on this thread lies: of its innermost scope for the device, else the process's.
CENOTE_HOT resource_place& place_for_thread(int device) {
  if (resource_place* const of_scope = find_place_of_scope(device)) return *of_scope;
  return place_of(device);
}

/// The specification that a resource was made from, as long as the resource lives.
struct origin {
  std::weak_ptr<memory_resource> made;
  std::string specification;
};

struct default_resources {
  std::array<driver_mutex, max_devices> making;  // a device's resource is made by one thread; taken before `mutex`
  process_mutex mutex;                           // guards all below, and that they agree with the places
  std::string specification;                     // empty: what the environment says
  std::uint64_t changes = 0;                     // of the default specification
  std::optional<int> only_device;                // that the process keeps to, until it was warned
  std::array<origin, max_devices> origins;
};

default_resources& defaults() {
  static immortal<default_resources> all;
  return *all;
}

std::string specification_of_environment() {
  const char* const specified = environment_variable(default_variable);
  return specified != nullptr ? specified : "cuda";
}

/// Makes what a device gets that has no resource, far from where the program chose it: an error says where that was.
/// `installed` is empty for what the environment says.
resource_ptr make_chosen_before(const std::string& installed, int device) {
  const auto located = [&](const std::exception& error) {
    const std::string where = installed.empty() ? std::string("in the environment variable ") + default_variable
                                                : "in what was installed, '" + installed + "'";
    return where + ": " + error.what();
  };
  try {
    return make_resource(installed.empty() ? specification_of_environment() : installed, device);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(located(error));
  } catch (const std::out_of_range& error) {  // a device that is not there
    throw std::out_of_range(located(error));
  } catch (const std::logic_error& error) {  // sizes that contradict each other
    throw std::logic_error(located(error));
  } catch (const cuda_error&) {
    throw;
  } catch (const driver_unavailable&) {
    throw;
  } catch (const std::runtime_error& error) {  // what the device cannot do, a log file that cannot be opened
    throw std::runtime_error(located(error));
  }
}

/// The caller holds `mutex` of the defaults.
bool is_made_from(int device, const std::string& specification) {
  const origin& known = defaults().origins[static_cast<std::size_t>(device)];
  return known.specification == specification && place_of(device).has(known.made);
}

bool is_in_place(int device, const std::string& specification) {
  const std::lock_guard lock(defaults().mutex);
  return is_made_from(device, specification);
}

/// Returns the one that was there. The caller holds `mutex` of the defaults.
resource_ptr put(int device, resource_ptr made, const std::string& specification) {
  origin fresh{made, specification};
  resource_ptr replaced = place_of(device).exchange(std::move(made));
  std::swap(defaults().origins[static_cast<std::size_t>(device)], fresh);
  return replaced;
}

/// Warns once of a device that the process does not keep to, which has its first resource. The caller does not hold
/// `mutex`.
void warn_of_other_device(int device, const memory_resource& made) {
  std::optional<int> only;
  {
    const std::lock_guard lock(defaults().mutex);
    if (defaults().only_device == device) return;
    std::swap(only, defaults().only_device);
  }
  if (!only) return;
  log(log_level::warn, "a thread uses device ", device, ", and this process was put onto device ", *only,
      ": what the thread allocates comes from '", made.specification(), "'. Let each thread choose device ", *only,
      " before it uses one (set_device), or install the resource for all devices");
}

/// Puts a resource of the default specification there, unless one is there by then.
void make_default(int device) {
  check_device(device);
  resource_place& place = place_of(device);
  default_resources& known = defaults();
  const std::lock_guard alone(known.making[static_cast<std::size_t>(device)]);
  for (resource_ptr made; place.find() == nullptr;) {
    std::unique_lock lock(known.mutex);
    const std::uint64_t changes = known.changes;
    origin fresh{{}, known.specification};
    lock.unlock();
    made = make_chosen_before(fresh.specification, device);
    fresh.made = made;
    lock.lock();
    if (known.changes != changes) continue;  // `made` is of what was the default before
    place.fill(made);
    const bool is_in_place = place.has(made);
    if (is_in_place) std::swap(known.origins[static_cast<std::size_t>(device)], fresh);
    lock.unlock();
    if (is_in_place) warn_of_other_device(device, *made);
  }
}

}  // namespace

std::shared_ptr<memory_resource> find_per_device_resource(int device) { return place_for_thread(device).find(); }

std::shared_ptr<memory_resource> find_process_resource(int device) { return place_of(device).find(); }

std::shared_ptr<memory_resource> get_per_device_resource(int device) {
  for (resource_place& place = place_for_thread(device);;) {
    if (auto present = place.find()) return present;
    make_default(device);
  }
}

CENOTE_HOT resource_hold find_resource_hold(int device) { return place_for_thread(device).hold(); }

CENOTE_HOT resource_hold get_resource_hold(int device) {
  for (resource_place& place = place_for_thread(device);;) {
    if (auto present = place.hold(); !present.is_empty()) return present;
    make_default(device);
  }
}

std::shared_ptr<memory_resource> set_per_device_resource(int device, std::shared_ptr<memory_resource> resource) {
  if (!resource) throw std::invalid_argument("the resource of a device cannot be null");
  check_device(device);
  if (resource->device() != device) {
    throw std::invalid_argument("a resource of device " + std::to_string(resource->device()) + " cannot serve device " +
                                std::to_string(device));
  }
  return place_for_thread(device).exchange(std::move(resource));
}

std::shared_ptr<memory_resource> reset_per_device_resource(int device) {
  check_device(device);
  return place_of(device).exchange(nullptr);
}

std::shared_ptr<memory_resource> get_current_device_resource() { return get_per_device_resource(current_device()); }

std::shared_ptr<memory_resource> set_current_device_resource(std::shared_ptr<memory_resource> resource) {
  return set_per_device_resource(current_device(), std::move(resource));
}

std::shared_ptr<memory_resource> reset_current_device_resource() { return reset_per_device_resource(current_device()); }

void reset_all_device_resources() {
  std::array<resource_ptr, max_devices> replaced;  // which go once the lock is released
  default_resources& known = defaults();
  const std::lock_guard lock(known.mutex);
  known.specification.clear();
  ++known.changes;
  known.only_device.reset();
  for (std::size_t i = 0; i < places.size(); ++i) replaced[i] = places[i].exchange(nullptr);
}

void install_resource(const std::string& specification) {
  specification_words(specification);  // throws for a text that no device could use
  const std::optional<int> first = device_to_begin_with();
  resource_ptr made;
  if (first && !is_in_place(*first, specification)) made = make_resource(specification, *first);
  std::string text = specification;
  std::array<resource_ptr, max_devices> replaced;
  default_resources& known = defaults();
  const std::lock_guard lock(known.mutex);
  if (made) replaced[static_cast<std::size_t>(*first)] = put(*first, std::move(made), specification);
  std::swap(known.specification, text);
  ++known.changes;
  known.only_device.reset();
  for (int device = 0; device < max_devices; ++device) {
    if (!is_made_from(device, specification))
      replaced[static_cast<std::size_t>(device)] = place_of(device).exchange(nullptr);
  }
}

void install_resource(int device, const std::string& specification) {
  check_device(device);
  if (is_in_place(device, specification)) return;
  resource_ptr made = make_resource(specification, device);
  resource_ptr replaced;
  const std::lock_guard lock(defaults().mutex);
  replaced = put(device, std::move(made), specification);
}

void keep_to_device(int device) {
  check_device(device);
  std::array<resource_ptr, max_devices> replaced;  // which go once the lock is released
  const std::lock_guard lock(defaults().mutex);
  defaults().only_device = device;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (static_cast<int>(i) != device) replaced[i] = places[i].exchange(nullptr);
  }
}

std::string default_specification() {
  const std::lock_guard lock(defaults().mutex);
  return defaults().specification.empty() ? specification_of_environment() : defaults().specification;
}

void set_default_specification(const std::string& specification) {
  if (!specification.empty()) specification_words(specification);
  std::string text = specification;
  const std::lock_guard lock(defaults().mutex);
  std::swap(defaults().specification, text);
  ++defaults().changes;
}

std::vector<int> devices_with_resource() {
  std::vector<int> devices;
  for (int device = 0; device < max_devices; ++device) {
    if (place_of(device).find()) devices.push_back(device);
  }
  return devices;
}

const void* registry_address() noexcept { return &places; }

}  // namespace cenote::inline v1
