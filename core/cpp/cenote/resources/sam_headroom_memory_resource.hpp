// System memory that leaves some of the device's own memory free.
//
// On a machine where the device caches the host's memory, one large user can crowd out everybody who needs device
// memory proper. This one tells the driver where each block should live:
//
//     | preferred on the device | preferred on the host |
//       as much as leaves `headroom` bytes of it free     the rest
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"
#include "cenote/resources/system_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class sam_headroom_memory_resource final : public driver_memory_resource {
 public:
  /// `headroom` in bytes. On the current device, or on `device`. std::runtime_error as system_memory_resource.
  explicit sam_headroom_memory_resource(std::size_t headroom);
  sam_headroom_memory_resource(int device, std::size_t headroom);

  std::string kind() const override { return "sam_headroom"; }
  std::string specification() const override {
    return spell_specification(kind(), {"headroom=" + spell_bytes(headroom_)});
  }
  bool is_host_accessible() const noexcept override { return true; }
  bool is_stream_ordered() const noexcept override { return false; }

 private:
  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;

  system_memory_resource system_;
  std::size_t headroom_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
