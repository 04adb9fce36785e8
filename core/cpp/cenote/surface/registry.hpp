// The current memory resource of each device: one table for the whole process, in libcenote.so.
//
// C++, C, Python and every plugin read and set this one. Until one is set, a device's resource is what the environment
// variable CENOTE_RESOURCE specifies, else the driver's plain device memory. Setting affects new allocations only.
//
// Threads: all functions from any thread. The table is never destroyed.
#pragma once

#include <memory>
#include <vector>

#include "cenote/memory_resource.hpp"

namespace cenote {

/// The current resource of `device`; null if none has been set or asked for yet.
std::shared_ptr<memory_resource> find_per_device_resource(int device);

/// The current resource of `device`, made if there is none yet. std::out_of_range if there is no such device.
std::shared_ptr<memory_resource> get_per_device_resource(int device);

/// Returns the previous one, null if there was none. std::invalid_argument if `resource` is null or of another device.
std::shared_ptr<memory_resource> set_per_device_resource(int device, std::shared_ptr<memory_resource> resource);

/// Takes the current resource of `device` away and returns it, null if there was none: the next one asked for is made
/// anew, as the first was.
std::shared_ptr<memory_resource> reset_per_device_resource(int device);

/// Those of the device that is current on the calling thread.
std::shared_ptr<memory_resource> get_current_device_resource();
std::shared_ptr<memory_resource> set_current_device_resource(std::shared_ptr<memory_resource> resource);
std::shared_ptr<memory_resource> reset_current_device_resource();

/// reset_per_device_resource for every device. Makes no driver call of its own.
void reset_all_device_resources();

/// The devices that have a current resource, in order. Makes no driver call.
std::vector<int> devices_with_resource();

/// Where the table lies: every user in the process must see the same address.
const void* registry_address() noexcept;

}  // namespace cenote
