// Moves each allocation to its device before it is used, on the stream that it is allocated on.
//
// For managed memory, which otherwise moves page by page at its first touch. Memory that does not move is left alone.
//
// Threads: no state.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class prefetch_resource_adaptor final : public resource_adaptor {
 public:
  explicit prefetch_resource_adaptor(std::shared_ptr<memory_resource> upstream)
      : resource_adaptor(std::move(upstream), "prefetch") {}

  std::string kind() const override { return "prefetch"; }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
