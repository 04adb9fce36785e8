// The resource "virtual": device memory by the driver's virtual memory interface, in whole pages.
//
//     allocate   reserve addresses → make one page of the size, in multiples of 2 MiB → map it
//     free       wait for the stream → unmap → the page and the addresses go back
//
// Each allocation is one page, one handle of the driver: it can be exported to other processes and registered with a
// network card as a whole. It is slow, as `cuda` is, and a request below 2 MiB takes 2 MiB. What it is made for is to
// stand under a pool, which does not ask it for memory, but takes over its settings and maps pages of its own
// (pool_memory_resource.hpp).
//
// A device without virtual memory, such as a vGPU, gives plain memory instead, as under `cuda`, and a pool over this
// resource takes chunks of it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cenote/driver/memory_pool.hpp"
#include "cenote/driver/peer_devices.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/resources/driver_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class virtual_memory_resource final : public driver_memory_resource {
 public:
  struct options {
    std::optional<bool> ipc{};  ///< other processes can map pages, by file descriptors; if not given, so it is where
                                ///< the device has them, unless there are fabric handles
    bool fabric = false;        ///< the same by fabric handles
    bool for_rdma = false;      ///< a network card will read and write them, where the device can be told so
    peer_devices peers{};       ///< other devices that may use the memory
  };

  /// On the current device, or on `device`. Throws std::runtime_error where handles are wanted of a device that has no
  /// virtual memory, std::out_of_range or std::invalid_argument for peers that are not there or cannot reach it.
  virtual_memory_resource();
  explicit virtual_memory_resource(int device);
  explicit virtual_memory_resource(const options& wanted);
  virtual_memory_resource(int device, const options& wanted);
  ~virtual_memory_resource() override;

  std::string kind() const override { return "virtual"; }
  std::string specification() const override;
  bool is_host_accessible() const noexcept override { return false; }
  bool is_stream_ordered() const noexcept override { return false; }

  /// Whether the device has virtual memory; else its memory is plain.
  bool has_pages() const noexcept { return mapped_ != nullptr; }

  /// The properties that a pool over this resource gives its own pages.
  const options& settings() const noexcept { return options_; }

  /// How its pages, and those of a pool over it, can be shared.
  export_handles handles() const noexcept { return {has_descriptors_, options_.fabric}; }

 private:
  struct mappings;

  void* take(stream_ref stream, std::size_t bytes) override;
  void give(stream_ref stream, void* pointer, std::size_t bytes) noexcept override;

  options options_;
  bool has_descriptors_ = false;
  std::unique_ptr<mappings> mapped_;  // null without virtual memory
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
