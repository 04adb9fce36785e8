// The current memory resource of each device: one table for the whole process, in libcenote.so.
//
// C++, C, Python and every plugin read and set this one. Setting affects new allocations only.
//
//   1. A resource is current on its own device. A specification may be installed for all devices of the process.
//   2. A device that has no resource gets one when it is first asked for: from the default specification, which is the
//      one that was installed, else what the environment variable CENOTE_RESOURCE says, else the driver's plain device
//      memory. So a program may choose before it knows which devices it will use, and no other device is touched.
//   3. A process that keeps to one device is told once, by the log, when a thread uses another one: that thread has not
//      chosen its device, and gets what was not installed there.
//   4. On a thread with a scope (resource_scope.hpp), the functions that get and set a current resource mean the
//   scope's.
//
// Threads: all functions from any thread. The table is never destroyed. Where several threads ask for the resource of a
// device that has none, one makes it and the others wait.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// The current resource of `device`; null if none has been set or asked for yet.
CENOTE_EXPORT std::shared_ptr<memory_resource> find_per_device_resource(int device);

/// The same without the calling thread's scopes: the process's.
CENOTE_EXPORT std::shared_ptr<memory_resource> find_process_resource(int device);

/// The current resource of `device`, made if there is none yet. std::out_of_range if there is no such device.
CENOTE_EXPORT std::shared_ptr<memory_resource> get_per_device_resource(int device);

/// Returns the previous one, null if there was none. std::invalid_argument if `resource` is null or of another device.
CENOTE_EXPORT std::shared_ptr<memory_resource> set_per_device_resource(int device,
                                                                       std::shared_ptr<memory_resource> resource);

/// Takes the current resource of `device` away and returns it, null if there was none: the next one asked for is made
/// anew, as the first was.
CENOTE_EXPORT std::shared_ptr<memory_resource> reset_per_device_resource(int device);

/// Those of the device that is current on the calling thread.
CENOTE_EXPORT std::shared_ptr<memory_resource> get_current_device_resource();
CENOTE_EXPORT std::shared_ptr<memory_resource> set_current_device_resource(std::shared_ptr<memory_resource> resource);
CENOTE_EXPORT std::shared_ptr<memory_resource> reset_current_device_resource();

/// Takes the current resource of every device away, and the default specification that was set: all is as it was when
/// the process began. Makes no driver call of its own.
CENOTE_EXPORT void reset_all_device_resources();

/// Has every device of the process use `specification` (specification.hpp). What is current is replaced, unless it was
/// made from that text. The device that the calling thread has chosen, or the only one there is, gets its resource now,
/// so that what is wrong shows now; the others when they are first used. Throws as make_resource does; then nothing has
/// changed.
CENOTE_EXPORT void install_resource(const std::string& specification);

/// The same for one device, which gets its resource now.
CENOTE_EXPORT void install_resource(int device, const std::string& specification);

/// Says that this process is to use one device only, until something is installed for all: takes the current resources
/// of the others away, and warns of the first use of one of them. std::out_of_range if there is no such device.
CENOTE_EXPORT void keep_to_device(int device);

/// Returns the specification from which a device that has no resource gets one.
CENOTE_EXPORT std::string default_specification();

/// For devices that have no resource; empty for what the process began with. std::invalid_argument for a wrong text.
CENOTE_EXPORT void set_default_specification(const std::string& specification);

/// The devices that have a current resource, in order. Makes no driver call.
CENOTE_EXPORT std::vector<int> devices_with_resource();

/// Where the table lies: every user in the process must see the same address.
CENOTE_EXPORT const void* registry_address() noexcept;

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
