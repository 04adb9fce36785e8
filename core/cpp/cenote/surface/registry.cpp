#include "cenote/surface/registry.hpp"

#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/containers/current_resource.hpp"  // one of the functions defined here
#include "cenote/driver/device.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/resource_place.hpp"
#include "cenote/surface/specification.hpp"

namespace cenote {
namespace {

constexpr const char* default_variable = "CENOTE_RESOURCE";

constinit std::array<resource_place, max_devices> places;

resource_place& place_of(int device) {
  if (device >= 0 && device < max_devices) return places[static_cast<std::size_t>(device)];
  throw std::out_of_range("there is no device " + std::to_string(device));
}

std::string in_variable(const std::exception& error) {
  return std::string("in the environment variable ") + default_variable + ": " + error.what();
}

std::shared_ptr<memory_resource> default_resource(int device) {
  check_device(device);
  const char* const specified = environment_variable(default_variable);
  if (specified == nullptr) return std::make_shared<cuda_memory_resource>(device);
  try {
    return make_resource(specified, device);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(in_variable(error));
  } catch (const std::logic_error& error) {  // sizes that contradict each other
    throw std::logic_error(in_variable(error));
  } catch (const cuda_error&) {
    throw;
  } catch (const driver_unavailable&) {
    throw;
  } catch (const std::runtime_error& error) {  // what the device cannot do, a log file that cannot be opened
    throw std::runtime_error(in_variable(error));
  }
}

}  // namespace

std::shared_ptr<memory_resource> find_per_device_resource(int device) { return place_of(device).find(); }

std::shared_ptr<memory_resource> get_per_device_resource(int device) {
  for (resource_place& place = place_of(device);;) {
    if (auto present = place.find()) return present;
    place.fill(default_resource(device));  // which calls the driver; where two threads race, the first to arrive wins
  }
}

resource_hold find_resource_hold(int device) { return place_of(device).hold(); }

resource_hold get_resource_hold(int device) {
  for (resource_place& place = place_of(device);;) {
    if (auto present = place.hold(); !present.is_empty()) return present;
    place.fill(default_resource(device));
  }
}

std::shared_ptr<memory_resource> set_per_device_resource(int device, std::shared_ptr<memory_resource> resource) {
  if (!resource) throw std::invalid_argument("the resource of a device cannot be null");
  check_device(device);
  if (resource->device() != device) {
    throw std::invalid_argument("a resource of device " + std::to_string(resource->device()) + " cannot serve device " +
                                std::to_string(device));
  }
  return place_of(device).exchange(std::move(resource));
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
  for (resource_place& place : places) place.exchange(nullptr);
}

std::vector<int> devices_with_resource() {
  std::vector<int> devices;
  for (int device = 0; device < max_devices; ++device) {
    if (find_per_device_resource(device)) devices.push_back(device);
  }
  return devices;
}

const void* registry_address() noexcept { return &places; }

}  // namespace cenote
