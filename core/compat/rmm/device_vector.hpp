// Thrust's vector in memory of a resource.
#pragma once

#include <thrust/device_vector.h>

#include <rmm/mr/thrust_allocator_adaptor.hpp>

RMM_NAMESPACE_BEGIN

template <typename T>
using device_vector = thrust::device_vector<T, mr::thrust_allocator<T>>;

RMM_NAMESPACE_END
