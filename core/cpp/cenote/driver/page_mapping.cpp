#include "cenote/driver/page_mapping.hpp"

#include <utility>
#include <vector>

#include "cenote/driver/driver.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

/// The room that is made for a mapping. It is not known how much a mapping takes; the driver takes memory in such
/// steps.
constexpr std::size_t page_table_bytes = std::size_t{2} << 20;

CUdeviceptr value_of(const std::byte* address) { return reinterpret_cast<CUdeviceptr>(address); }

CUmemAccessDesc use_by(int device) { return {location_of(device), CU_MEM_ACCESS_FLAGS_PROT_READWRITE}; }

CUresult set_access(const page_mapping& mapping, std::span<const CUmemAccessDesc> uses, stream_ref stream) {
  const physical_page& page = *mapping.page();
  return static_cast<CUresult>(ask_for_memory(page.device(), page_table_bytes, stream, [&] {
    return driver().cuMemSetAccess(value_of(mapping.address()), page.bytes(), uses.data(), uses.size());
  }));
}

}  // namespace

page_mapping::page_mapping(std::shared_ptr<const physical_page> page,
                           std::shared_ptr<const address_reservation> addresses, std::byte* at) noexcept
    : page_(std::move(page)), addresses_(std::move(addresses)), address_(at) {}

page_mapping::page_mapping(page_mapping&& other) noexcept
    : page_(std::move(other.page_)),
      addresses_(std::move(other.addresses_)),
      address_(std::exchange(other.address_, nullptr)) {}

page_mapping& page_mapping::operator=(page_mapping&& other) noexcept {
  page_mapping moved(std::move(other));
  page_.swap(moved.page_);
  addresses_.swap(moved.addresses_);
  std::swap(address_, moved.address_);
  return *this;
}

page_mapping page_mapping::map(std::shared_ptr<const physical_page> page,
                               std::shared_ptr<const address_reservation> addresses, std::byte* at,
                               std::span<const int> peers, stream_ref stream) {
  std::vector<CUmemAccessDesc> uses{use_by(page->device())};
  for (const int peer : peers) {
    if (peer != page->device()) uses.push_back(use_by(peer));
  }
  const auto mapped = static_cast<CUresult>(ask_for_memory(page->device(), page_table_bytes, stream, [&] {
    return driver().cuMemMap(value_of(at), page->bytes(), 0, page->value(), 0);
  }));
  if (mapped == CUDA_ERROR_OUT_OF_MEMORY) return {};
  check_driver("cuMemMap", mapped);
  page_mapping made(std::move(page), std::move(addresses), at);  // unmaps where access is refused
  const CUresult opened = set_access(made, uses, stream);
  if (opened == CUDA_ERROR_OUT_OF_MEMORY) return {};
  check_driver("cuMemSetAccess", opened);
  return made;
}

page_mapping::~page_mapping() {
  if (page_ == nullptr || driver_is_gone()) return;
  const auto unmap = [this] { return driver().cuMemUnmap(value_of(address_), page_->bytes()); };
  report_driver_failure("cuMemUnmap", try_twice(unmap), "a page is leaked, as unmapping it failed: ");
}

void page_mapping::open_to(int device) const {
  const CUmemAccessDesc use = use_by(device);
  check_driver("cuMemSetAccess", set_access(*this, {&use, 1}, {}));
}

void page_mapping::unmap() {
  if (page_ == nullptr) return;
  CENOTE_DRIVER_CALL(cuMemUnmap, value_of(address_), page_->bytes());
  address_ = nullptr;
  page_ = nullptr;
  addresses_ = nullptr;
}

}  // namespace cenote::inline v1
