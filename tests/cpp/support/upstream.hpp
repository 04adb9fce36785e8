// The upstream of most tests.
#pragma once

#include <memory>

#include "cenote/resources/cuda_memory_resource.hpp"

namespace cenote::test {

inline std::shared_ptr<memory_resource> cuda() { return std::make_shared<cuda_memory_resource>(0); }

}  // namespace cenote::test
