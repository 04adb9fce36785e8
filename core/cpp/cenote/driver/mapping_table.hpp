// Mappings by their address, each open to the devices that may use its memory.
//
//   1. Memory for which devices were named is open to those, from the beginning.
//   2. Memory that follows the process is open to the devices in use that can reach it, and to each later one before
//      that is used for the first time (peer_access.hpp): open_to() opens all that is mapped then.
//   3. A mapping is made outside of the lock, for the devices that are known. One that came meanwhile is seen when the
//      mapping is added, under the lock, and the mapping is opened to it first.
//
// Invariant: I1 each mapping of the table is open to each of `peers_`, unless the driver refused, which is reported.
// Threads: any. `mutex_` guards the table and the devices; it is held while a mapping is opened to a later device. It
// is taken after the lock of peer_access.hpp, and nothing is called under it but the driver.
// Cost: a call of the driver for each mapping when a device is first used: 40 microseconds on an H200.
#pragma once

#include <cstddef>
#include <memory>
#include <unordered_map>
#include <vector>

#include "cenote/driver/page_mapping.hpp"
#include "cenote/driver/peer_access.hpp"
#include "cenote/driver/peer_devices.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class mapping_table final : private peer_follower {
 public:
  /// For memory of `device`. Throws as check_peers does.
  mapping_table(int device, const peer_devices& peers);
  ~mapping_table();
  mapping_table(const mapping_table&) = delete;
  mapping_table& operator=(const mapping_table&) = delete;

  /// As page_mapping::map: false when memory ran out, cuda_error for any other failure; nothing has changed then.
  bool map(std::shared_ptr<const physical_page> page, std::shared_ptr<const address_reservation> addresses,
           std::byte* at, stream_ref stream);

  /// The page that is mapped there; null where there is none.
  std::shared_ptr<const physical_page> page_at(std::byte* address) const;

  /// Takes the mapping out; an empty one where there is none.
  page_mapping take(std::byte* address);

  /// Puts back what take() gave.
  void put_back(page_mapping mapping);

 private:
  page_mapping make(const std::shared_ptr<const physical_page>& page,
                    const std::shared_ptr<const address_reservation>& addresses, std::byte* at,
                    const std::vector<int>& peers, stream_ref stream) const;
  void open_to(int device) override;
  void forget_devices() noexcept override;

  const int device_;
  const bool follows_;
  mutable object_mutex mutex_;
  std::unordered_map<std::byte*, page_mapping> by_address_;
  std::vector<int> peers_;  // grows at its end
};

}  // namespace cenote::inline v1
