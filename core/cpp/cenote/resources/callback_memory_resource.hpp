// Memory from two functions of the user's.
//
// Threads: the functions are called from any thread that allocates or frees, with no lock of this resource held.
#pragma once

#include <functional>

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class callback_memory_resource final : public driver_memory_resource {
 public:
  /// Returns `bytes` bytes in the order of `stream`, aligned as the driver's are; null when memory ran out. What it
  /// throws passes through to whoever allocates.
  using allocate_function = std::function<void*(stream_ref stream, std::size_t bytes)>;

  /// Should not throw: what it throws is reported, and the memory counts as freed.
  using deallocate_function = std::function<void(stream_ref stream, void* pointer, std::size_t bytes)>;

  /// On the current device, or on `device`. std::invalid_argument if a function is empty.
  callback_memory_resource(allocate_function allocate, deallocate_function deallocate);
  callback_memory_resource(int device, allocate_function allocate, deallocate_function deallocate);

  std::string kind() const override { return "callback"; }
  bool is_host_accessible() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;

  allocate_function allocate_;
  deallocate_function deallocate_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
