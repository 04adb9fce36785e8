#include "cenote/driver/imported_pages.hpp"

#include <stdexcept>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/physical_page.hpp"

namespace cenote::inline v1 {

imported_pages::imported_pages(int device, std::size_t bytes)
    : device_(device), addresses_(address_reservation::reserve(device, bytes)) {
  if (addresses_ == nullptr) throw std::runtime_error("no addresses are left for the memory of another process");
}

void imported_pages::add(const file_descriptor& page, std::size_t bytes, std::span<const int> peers) {
  if (bytes > addresses_->bytes() - mapped_bytes_) {
    throw std::runtime_error("another process has sent more memory than it said");
  }
  const device_scope scope(device_);
  mappings_.reserve(mappings_.size() + 1);  // nothing below may lose a page
  page_mapping mapped = page_mapping::map(physical_page::import(device_, bytes, page), addresses_,
                                          addresses_->base() + mapped_bytes_, peers);
  if (!mapped) throw std::runtime_error("the device has no memory left to map the memory of another process");
  mappings_.push_back(std::move(mapped));
  mapped_bytes_ += bytes;
}

}  // namespace cenote::inline v1
