#include "cenote/adaptors/prefetch_resource_adaptor.hpp"

#include "cenote/driver/memory.hpp"

namespace cenote::inline v1 {

void* prefetch_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = pass_on(stream, bytes, alignment);
  if (pointer == nullptr) return nullptr;
  try {
    prefetch_async(pointer, bytes, device(), stream, device());
  } catch (...) {
    next().deallocate(stream, pointer, bytes, alignment);
    throw;
  }
  return pointer;
}

void prefetch_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                              std::size_t alignment) {
  pass_on(stream, pointer, bytes, alignment);
}

}  // namespace cenote::inline v1
