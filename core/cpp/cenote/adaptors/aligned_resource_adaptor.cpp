#include "cenote/adaptors/aligned_resource_adaptor.hpp"

#include <stdexcept>

namespace cenote::inline v1 {

aligned_resource_adaptor::aligned_resource_adaptor(std::shared_ptr<memory_resource> upstream, std::size_t alignment,
                                                   std::size_t threshold)
    : resource_adaptor(std::move(upstream), "aligned"), alignment_(alignment), threshold_(threshold) {
  if (!is_power_of_two(alignment)) {
    throw std::invalid_argument("the aligned adaptor's alignment must be a power of two, not " +
                                std::to_string(alignment));
  }
}

std::string aligned_resource_adaptor::specification() const {
  return spell_specification(kind(), {"alignment=" + spell_bytes(alignment_),
                                      threshold_ == 0 ? std::string{} : "threshold=" + spell_bytes(threshold_)});
}

memory_state aligned_resource_adaptor::state() const {
  memory_state figures = next().state();
  if (!figures.largest_free || alignment_ <= default_alignment) return figures;
  // An upstream that cuts blocks of 256 bytes finds so many of them aligned in what it has, wherever that starts.
  const std::size_t lost = alignment_ - default_alignment;
  const std::size_t aligned = *figures.largest_free - std::min(*figures.largest_free, lost);
  const std::size_t unaligned = threshold_ == 0 ? 0 : std::min(*figures.largest_free, threshold_ - 1);
  figures.largest_free = aligned >= threshold_ ? aligned : unaligned;
  return figures;
}

void* aligned_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return next().try_allocate(stream, bytes, raised(bytes, alignment));
}

void aligned_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                             std::size_t alignment) {
  next().deallocate(stream, pointer, bytes, raised(bytes, alignment));
}

}  // namespace cenote::inline v1
