// Memory of two functions.
#pragma once

#include <functional>
#include <rmm/detail/handle.hpp>

#include "cenote/resources/callback_memory_resource.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

using allocate_callback_t = std::function<void*(std::size_t, cuda::stream_ref, void*)>;
using deallocate_callback_t = std::function<void(void*, std::size_t, cuda::stream_ref, void*)>;

class callback_memory_resource : public detail::handle<cenote::callback_memory_resource, cuda::mr::device_accessible> {
 public:
  callback_memory_resource(allocate_callback_t allocate_callback, deallocate_callback_t deallocate_callback,
                           void* allocate_callback_arg = nullptr, void* deallocate_callback_arg = nullptr)
      : handle(
            std::in_place,
            [call = std::move(allocate_callback), allocate_callback_arg](cenote::stream_ref stream, std::size_t bytes) {
              return call(bytes, cenote::to_cccl(stream), allocate_callback_arg);
            },
            [call = std::move(deallocate_callback), deallocate_callback_arg](cenote::stream_ref stream, void* pointer,
                                                                             std::size_t bytes) {
              call(pointer, bytes, cenote::to_cccl(stream), deallocate_callback_arg);
            }) {}
};

static_assert(cuda::mr::resource_with<callback_memory_resource, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
