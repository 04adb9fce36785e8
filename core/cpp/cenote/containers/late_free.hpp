// How a container frees memory that was used last on a stream that cannot be named: after all work of its device.
//
// As with the current resource (current_resource.hpp), containers know of the surface below which they lie no more than
// this one function, which surface/reclaimer.cpp defines.
#pragma once

#include <cstddef>
#include <memory>

#include "cenote/memory_resource.hpp"

namespace cenote {

/// Frees memory of `resource` after all work that its device has been given by now; once captures that are underway
/// have ended, if there are any.
void free_after_all_work(std::shared_ptr<memory_resource> resource, void* pointer, std::size_t bytes,
                         std::size_t alignment) noexcept;

}  // namespace cenote
