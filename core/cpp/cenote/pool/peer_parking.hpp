// Contents of paused memory in free memory of another device, which the paused one reaches by itself.
//
//     offset   0 ........ 256 MiB ........ 512 MiB …      page by page, in the order in which it is saved
//
// A page of that device is made when the first byte for it is saved, so that making one runs beside the copies into
// those before. They lie in a row, open to both devices.
//
// Threads: as parking. Cost: 0.5 ms of the host a GiB to make the pages, 1 ms to give them back; copies at the link's
// rate, 390 GB/s by NVLink (H200, driver 580.159.04).
#pragma once

#include <memory>

#include "cenote/driver/address_reservation.hpp"
#include "cenote/driver/mapping_table.hpp"
#include "cenote/pool/parking.hpp"

namespace cenote::inline v1::pool {

class peer_parking final : public parking {
 public:
  /// Throws std::out_of_range where there is no device `peer`, std::invalid_argument where it is `device` itself or one
  /// that this one does not reach.
  peer_parking(int device, int peer);

  void make_room(std::size_t bytes) override;

  /// Throws out_of_memory where the other device has no memory left.
  void save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) override;
  bool read(std::size_t offset, std::byte* to, std::size_t bytes) override;
  void load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) override;

 private:
  void make_pages(std::size_t end);
  [[noreturn]] void refuse(std::size_t bytes) const;

  const int device_;
  const int peer_;
  std::shared_ptr<const address_reservation> addresses_;
  std::size_t made_bytes_ = 0;
  mapping_table mappings_;
};

}  // namespace cenote::inline v1::pool
