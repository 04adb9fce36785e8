#include "cenote/driver/address_reservation.hpp"

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

std::shared_ptr<const address_reservation> address_reservation::reserve(int device, std::size_t bytes,
                                                                        std::size_t alignment) {
  const std::shared_ptr<address_reservation> reserved(new address_reservation(bytes));
  const device_scope scope(device);
  CUdeviceptr base = 0;
  const CUresult result = driver().cuMemAddressReserve(&base, bytes, alignment, 0, 0);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  check_driver("cuMemAddressReserve", result);
  reserved->base_ = reinterpret_cast<std::byte*>(base);
  return reserved;
}

address_reservation::~address_reservation() {
  if (base_ == nullptr || driver_is_gone()) return;
  const auto free = [this] { return driver().cuMemAddressFree(reinterpret_cast<CUdeviceptr>(base_), bytes_); };
  report_driver_failure("cuMemAddressFree", try_twice(free), "reserved addresses are leaked, as freeing them failed: ");
}

}  // namespace cenote::inline v1
