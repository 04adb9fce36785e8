#include "cenote/resources/virtual_memory_resource.hpp"

#include <stdexcept>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/mapping_table.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/physical_page.hpp"

namespace cenote::inline v1 {

struct virtual_memory_resource::mappings {
  mapping_table table;
};

virtual_memory_resource::virtual_memory_resource() : virtual_memory_resource(current_device()) {}

virtual_memory_resource::virtual_memory_resource(int device) : virtual_memory_resource(device, options{}) {}

virtual_memory_resource::virtual_memory_resource(const options& wanted)
    : virtual_memory_resource(current_device(), wanted) {}

virtual_memory_resource::virtual_memory_resource(int device, const options& wanted)
    : driver_memory_resource(device), options_(wanted) {
  if (has_virtual_memory(device)) {
    mapped_.reset(new mappings{{device, wanted.peers}});
    has_descriptors_ = wanted.ipc.value_or(!wanted.fabric && has_page_descriptors(device));
    return;
  }
  if (!wanted.ipc.value_or(false) && !wanted.fabric) return;
  throw std::runtime_error(
      "device " + std::to_string(device) + ", " + device_name(device) +
      ", has no virtual memory, so that no memory of it can be exported: leave ipc and fabric out");
}

virtual_memory_resource::~virtual_memory_resource() {
  if (is_gone()) static_cast<void>(mapped_.release());  // a forked child may neither unmap nor lock
}

std::string virtual_memory_resource::specification() const {
  const std::string peers = spell_peers(options_.peers);
  const char* const ipc = !options_.ipc ? "" : *options_.ipc ? "ipc=true" : "ipc=false";
  return spell_specification(kind(), {ipc, options_.fabric ? "fabric=true" : "", options_.for_rdma ? "rdma=true" : "",
                                      peers.empty() ? "" : "peers=" + peers});
}

void* virtual_memory_resource::take(stream_ref stream, std::size_t bytes) {
  if (!has_pages()) return budgeted_allocate(device(), bytes, stream);
  const std::size_t whole = align_up(bytes, virtual_memory_granularity(device()));
  if (whole > max_allocation) return nullptr;
  auto page = physical_page::create({device(), handles(), options_.for_rdma}, whole, stream);
  auto addresses = page == nullptr ? nullptr : address_reservation::reserve(device(), whole);
  if (addresses == nullptr) return nullptr;
  std::byte* const base = addresses->base();
  return mapped_->table.map(std::move(page), std::move(addresses), base, stream) ? base : nullptr;
}

void virtual_memory_resource::give(stream_ref stream, void* pointer, std::size_t bytes) noexcept {
  if (!has_pages()) return budgeted_free(device(), pointer, bytes, stream);
  page_mapping mapping = mapped_->table.take(static_cast<std::byte*>(pointer));
  if (!mapping) return report_once("a pointer was freed that the resource 'virtual' did not give out");
  if (!wait_before_give(stream)) mapped_->table.put_back(std::move(mapping));  // which leaks it
}

}  // namespace cenote::inline v1
