// References to resources, which own nothing.
#pragma once

#include <cuda/memory_resource>
#include <rmm/detail/error.hpp>
#include <rmm/detail/export.hpp>

RMM_NAMESPACE_BEGIN

using device_resource_ref = cuda::mr::synchronous_resource_ref<cuda::mr::device_accessible>;
using device_async_resource_ref = cuda::mr::resource_ref<cuda::mr::device_accessible>;
using host_resource_ref = cuda::mr::synchronous_resource_ref<cuda::mr::host_accessible>;
using host_async_resource_ref = cuda::mr::resource_ref<cuda::mr::host_accessible>;
using host_device_resource_ref =
    cuda::mr::synchronous_resource_ref<cuda::mr::host_accessible, cuda::mr::device_accessible>;
using host_device_async_resource_ref = cuda::mr::resource_ref<cuda::mr::host_accessible, cuda::mr::device_accessible>;

template <class Resource>
device_async_resource_ref to_device_async_resource_ref_checked(Resource* resource) {
  RMM_EXPECTS(resource != nullptr, "Unexpected null resource pointer.");
  return device_async_resource_ref{*resource};
}

RMM_NAMESPACE_END
