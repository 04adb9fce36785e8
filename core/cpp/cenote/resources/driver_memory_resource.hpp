// What stands at the bottom of every stack: a resource that takes each block from somewhere else, such as the driver.
//
// That somewhere is not asked for an alignment: the driver gives 256 bytes at least. Where more is wanted, a larger
// block is taken and the address moved up:
//
//     base             what is handed out
//     | 0 … alignment | bytes             | rest |
//
// The base of such a block is remembered until it is freed. Other blocks cost nothing for it.
//
// Threads: `mutex_` guards the bases; nothing is called under it.
#pragma once

#include <unordered_map>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class driver_memory_resource : public memory_resource {
 protected:
  using memory_resource::memory_resource;

  /// For memory that goes as soon as it is given back: waits for the work of `stream`. False, and reported, if that
  /// failed, or if the stream is being captured: waiting would end the capture, and the graph may use the memory. It
  /// must then be leaked.
  bool wait_before_give(stream_ref stream) const noexcept;

 private:
  /// Null when memory ran out; throws cuda_error for any other failure.
  virtual void* take(stream_ref stream, std::size_t bytes) = 0;
  virtual void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept = 0;

  bool is_captured_or_report(stream_ref stream) const noexcept;

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) final;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) final;

  object_mutex mutex_;
  std::unordered_map<void*, void*> bases_;  // of the blocks whose address was moved up
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
