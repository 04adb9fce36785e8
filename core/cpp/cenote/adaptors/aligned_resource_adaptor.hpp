// Gives allocations of a size and above a larger alignment than they ask for.
//
// Every resource honours the alignment that it is asked for, so that this one only raises it: the same for a free as
// for its allocation.
//
// Threads: no state.
#pragma once

#include <algorithm>

#include "cenote/ground/export.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class aligned_resource_adaptor final : public resource_adaptor {
 public:
  /// Allocations of at least `threshold` bytes are multiples of `alignment`. Throws std::invalid_argument unless
  /// `alignment` is a power of two.
  explicit aligned_resource_adaptor(std::shared_ptr<memory_resource> upstream,
                                    std::size_t alignment = default_alignment, std::size_t threshold = 0);

  std::size_t alignment() const noexcept { return alignment_; }
  std::size_t threshold() const noexcept { return threshold_; }

  std::string kind() const override { return "aligned"; }
  std::string specification() const override;
  memory_state state() const override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  std::size_t raised(std::size_t bytes, std::size_t alignment) const noexcept {
    return bytes < threshold_ ? alignment : std::max(alignment, alignment_);
  }

  const std::size_t alignment_;
  const std::size_t threshold_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
