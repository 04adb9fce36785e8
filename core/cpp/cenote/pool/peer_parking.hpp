// Contents of paused memory in free memory of another device, which the paused one reaches by itself.
//
// Pages of that device are made for each pause and mapped in a row, open to both devices; copies run between the two.
//
// Threads: as parking. Cost: 2 ms of the host a GiB for the pages; copies at the link's rate, 397 GB/s by NVLink out
// and 356 back (H200, driver 580.159.04).
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

  /// Throws out_of_memory where the other device has not so much.
  void make_room(std::size_t bytes) override;
  void save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) override;
  void load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) override;

 private:
  const int device_;
  const int peer_;
  std::shared_ptr<const address_reservation> addresses_;
  mapping_table mappings_;
};

}  // namespace cenote::inline v1::pool
