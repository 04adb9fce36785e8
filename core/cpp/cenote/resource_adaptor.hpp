// What every adaptor is made of: a resource that stands on another one and changes what passes through it.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "cenote/driver/nvtx.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A resource that only changes what passes through it: all but allocate and deallocate is its upstream's.
class resource_adaptor : public memory_resource {
 public:
  std::shared_ptr<memory_resource> upstream() const override { return upstream_; }

 protected:
  resource_adaptor(std::shared_ptr<memory_resource> upstream, const char* kind)
      : memory_resource(upstream, kind), upstream_(std::move(upstream)) {
    made_in_ = upstream_->made_in_;  // what it passes on is not looked at again
  }
  memory_resource& next() const noexcept { return *upstream_; }

  // What came in, passed on as it is: what allocate and deallocate look at has been looked at already.
  void* pass_on(stream_ref stream, std::size_t bytes, std::size_t alignment) {
    return nvtx::is_on() ? upstream_->try_allocate(stream, bytes, alignment)
                         : upstream_->allocate_block(stream, bytes, alignment);
  }
  void pass_on(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
    return nvtx::is_on() ? upstream_->deallocate(stream, pointer, bytes, alignment)
                         : upstream_->do_deallocate(stream, pointer, bytes, alignment);
  }

 private:
  std::shared_ptr<memory_resource> upstream_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
