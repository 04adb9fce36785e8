// Pages of another process, mapped here in a row.
//
// Their memory counts for the budget of the process that made them, and stays while either process has it.
//
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "cenote/driver/address_reservation.hpp"
#include "cenote/driver/page_mapping.hpp"
#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {

class imported_pages {
 public:
  /// Room for so many bytes. Throws std::runtime_error where the process has no such range of addresses left.
  imported_pages(int device, std::size_t bytes);

  /// Maps the page behind those that are mapped already, for its device and for `peers`. Throws cuda_error;
  /// std::runtime_error where the device has no memory left for its tables, or where the page does not fit.
  void add(const file_descriptor& page, std::size_t bytes, std::span<const int> peers);

  std::byte* base() const noexcept { return addresses_->base(); }
  std::size_t mapped_bytes() const noexcept { return mapped_bytes_; }

  /// Unmaps all; the caller knows that the work which used them is done.
  ~imported_pages() = default;
  imported_pages(const imported_pages&) = delete;
  imported_pages& operator=(const imported_pages&) = delete;

 private:
  int device_;
  std::shared_ptr<const address_reservation> addresses_;
  std::vector<page_mapping> mappings_;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace cenote::inline v1
