// Asks the program when memory has run out, and tries again while it says so.
#pragma once

#include <rmm/detail/handle.hpp>
#include <rmm/mr/failure_callback_t.hpp>

#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

/// `ExceptionType` is what RMM would catch; here it is want of memory, whatever it is named.
template <typename ExceptionType = rmm::out_of_memory>
class failure_callback_resource_adaptor
    : public detail::handle<cenote::failure_callback_resource_adaptor, cuda::mr::device_accessible> {
 public:
  using exception_type = ExceptionType;

  failure_callback_resource_adaptor(detail::any_device_resource upstream, failure_callback_t callback,
                                    void* callback_arg)
      : failure_callback_resource_adaptor::handle(
            of_upstream{}, std::move(upstream),
            [ask = std::move(callback), callback_arg](std::size_t bytes, cenote::stream_ref, std::size_t) {
              return ask(bytes, callback_arg);
            }) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return this->upstream(); }
};

static_assert(cuda::mr::resource_with<failure_callback_resource_adaptor<>, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
