// What a container takes that is given no resource: the current one of the calling thread's device.
//
// Containers lie below the registry and know nothing of it but this one function, which surface/registry.cpp defines.
#pragma once

#include <memory>

#include "cenote/memory_resource.hpp"

namespace cenote {

std::shared_ptr<memory_resource> get_current_device_resource();

}  // namespace cenote
