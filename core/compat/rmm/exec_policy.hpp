// Thrust's policies whose temporary memory is a resource's.
#pragma once

#include <thrust/system/cuda/execution_policy.h>
#include <thrust/version.h>

#include <rmm/mr/thrust_allocator_adaptor.hpp>
#include <utility>

RMM_NAMESPACE_BEGIN

using thrust_exec_policy_t =
    thrust::detail::execute_with_allocator<mr::thrust_allocator<char>, thrust::cuda_cub::execute_on_stream_base>;
using thrust_exec_policy_nosync_t =
    thrust::detail::execute_with_allocator<mr::thrust_allocator<char>, thrust::cuda_cub::execute_on_stream_nosync_base>;

class exec_policy : public thrust_exec_policy_t {
 public:
  explicit exec_policy(cuda::stream_ref stream = cuda::stream_ref{cudaStream_t{nullptr}},
                       detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : thrust_exec_policy_t(
            thrust::cuda::par(mr::thrust_allocator<char>(stream, std::move(resource))).on(stream.get())) {}
};

/// The same, without a wait wherever the result needs none.
class exec_policy_nosync : public thrust_exec_policy_nosync_t {
 public:
  explicit exec_policy_nosync(cuda::stream_ref stream = cuda::stream_ref{cudaStream_t{nullptr}},
                              detail::any_device_resource resource = mr::get_current_device_resource_ref())
      : thrust_exec_policy_nosync_t(
            thrust::cuda::par_nosync(mr::thrust_allocator<char>(stream, std::move(resource))).on(stream.get())) {}
};

RMM_NAMESPACE_END
