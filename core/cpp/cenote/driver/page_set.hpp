// A set of pages under several ranges of addresses: memory that has several users, of whom one works at a time.
//
//     range 1   [A][B][C]          one graph's addresses
//     range 2   [A][B][C][D]       another's, over the same pages: what it writes, the first one finds there
//     the set    A  B  C  D
//
//   1. map() shows the bytes of the set from an offset on at fresh addresses. The set grows to what is asked for.
//   2. unmap() takes a range out of use. It stays mapped until the work is done that the device has by then.
//   3. A page goes back to the device with its last address, from the end of the set on: the set is as large as the
//      furthest range in use.
//
// Invariants
//   I1  the set has a page for each offset that a range shows
//
// Threads: any; `mutex_` guards all. Mapping and unmapping do not wait for work of the device, and are legal beside
// captures of any mode. What was unmapped is marked with an event where nothing is being captured.
// Cost: some 60 us to map a page of 2 MiB (page_mapping.hpp).
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "cenote/driver/address_reservation.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/mapping_table.hpp"
#include "cenote/driver/physical_page.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {

class page_set {
 public:
  /// Offsets and sizes are multiples of it.
  static constexpr std::size_t page_bytes = std::size_t{2} << 20;

  /// Throws std::runtime_error where the device has no virtual memory.
  explicit page_set(int device);

  /// Fresh addresses of the set's bytes from `offset` on; null when memory ran out, and then nothing has changed.
  /// Throws std::invalid_argument for what is not in whole pages, cuda_error for any other failure.
  std::byte* map(std::size_t offset, std::size_t bytes);

  /// The range that begins there is not used any more by work that is given to the device from now on. False where no
  /// range begins.
  bool unmap(std::byte* range);

  /// Lets go of what is not used any more, and returns the bytes of the pages that are left. With `waits`, the host
  /// waits for the work that may still use it, unless something is being captured.
  std::size_t trim(bool waits);

 private:
  struct retired_range {
    std::byte* at;
    std::size_t bytes;
    std::shared_ptr<event> done;  // null: not marked yet
  };

  bool show_locked(std::size_t index, const std::shared_ptr<const address_reservation>& addresses, std::byte* at);
  void unmap_pages_locked(std::byte* range, std::size_t bytes);
  void mark_retired_locked();
  void reap_locked();
  void shrink_locked();

  const int device_;
  object_mutex mutex_;  // guards all below; the driver is called under it, which does not wait
  mapping_table mappings_;
  std::vector<std::shared_ptr<const physical_page>> pages_;
  std::map<std::byte*, std::size_t> ranges_;  // in use: address, bytes
  std::vector<retired_range> retired_;
};

}  // namespace cenote::inline v1
