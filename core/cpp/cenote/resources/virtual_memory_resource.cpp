#include "cenote/resources/virtual_memory_resource.hpp"

#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/page_mapping.hpp"
#include "cenote/driver/physical_page.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

struct virtual_memory_resource::mappings {
  object_mutex mutex;  // guards the table; no call of the driver is made under it
  std::unordered_map<void*, page_mapping> by_address;
};

virtual_memory_resource::virtual_memory_resource() : virtual_memory_resource(current_device()) {}

virtual_memory_resource::virtual_memory_resource(int device) : virtual_memory_resource(device, options{}) {}

virtual_memory_resource::virtual_memory_resource(const options& wanted)
    : virtual_memory_resource(current_device(), wanted) {}

virtual_memory_resource::virtual_memory_resource(int device, const options& wanted)
    : driver_memory_resource(device),
      options_(wanted),
      has_pages_(has_virtual_memory(device)),
      mapped_(std::make_unique<mappings>()) {
  const bool is_shared = wanted.handles.posix_file_descriptor || wanted.handles.fabric;
  if (has_pages_ || !is_shared) return;
  throw std::runtime_error(
      "device " + std::to_string(device) + ", " + device_name(device) +
      ", has no virtual memory, so that no memory of it can be exported: leave ipc and fabric out");
}

virtual_memory_resource::~virtual_memory_resource() {
  if (is_gone()) static_cast<void>(mapped_.release());  // a forked child may neither unmap nor lock
}

std::string virtual_memory_resource::specification() const {
  return spell_specification(
      kind(), {options_.handles.posix_file_descriptor ? "ipc=true" : "", options_.handles.fabric ? "fabric=true" : "",
               options_.for_rdma ? "rdma=true" : ""});
}

void* virtual_memory_resource::take(stream_ref stream, std::size_t bytes) {
  if (!has_pages_) return device_allocate(device(), bytes, stream);
  const std::size_t whole = align_up(bytes, virtual_memory_granularity(device()));
  if (whole > max_allocation) return nullptr;
  auto page = physical_page::create({device(), options_.handles, options_.for_rdma}, whole, stream);
  auto addresses = page == nullptr ? nullptr : address_reservation::reserve(device(), whole);
  if (addresses == nullptr) return nullptr;
  std::byte* const base = addresses->base();
  auto mapping = page_mapping::map(std::move(page), std::move(addresses), base, {}, stream);
  if (!mapping) return nullptr;
  const std::lock_guard lock(mapped_->mutex);
  mapped_->by_address.emplace(base, std::move(mapping));
  return base;
}

void virtual_memory_resource::give(stream_ref stream, void* pointer, std::size_t) noexcept {
  if (!has_pages_) return device_free(device(), pointer, stream);
  page_mapping mapping;
  {
    const std::lock_guard lock(mapped_->mutex);
    auto found = mapped_->by_address.extract(pointer);
    if (found.empty()) return report_once("a pointer was freed that the resource 'virtual' did not give out");
    mapping = std::move(found.mapped());
  }
  if (wait_before_give(stream)) return;
  const std::lock_guard lock(mapped_->mutex);
  mapped_->by_address.emplace(pointer, std::move(mapping));  // which leaks it
}

}  // namespace cenote::inline v1
