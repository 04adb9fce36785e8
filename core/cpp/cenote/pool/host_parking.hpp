// Contents of paused memory in pinned memory of the host.
//
//     offset   0 ........ 1 GiB ...... 1.5 GiB …      chunk by chunk, in the order in which it is saved
//
// A chunk is pinned when the first byte for it is saved, so that pinning one runs beside the copies into those before,
// and beside threads that find the memory of those behind.
//
// Threads: as parking. Cost: that of pinned_chunks, and the copies.
#pragma once

#include <optional>
#include <vector>

#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/pool/parking.hpp"

namespace cenote::inline v1::pool {

class host_parking final : public parking {
 public:
  explicit host_parking(int device) noexcept : device_(device) {}

  /// Throws out_of_memory where the host has no memory for what is to be pinned for them.
  void make_room(std::size_t bytes) override;

  /// Throws out_of_memory where the host has no memory after all.
  void save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) override;
  void end_saving(stream_ref) override { touched_.reset(); }
  void give_up_saving() noexcept override { touched_.reset(); }
  bool read(std::size_t offset, std::byte* to, std::size_t bytes) override;
  void load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) override;

 private:
  /// A chunk, and the offset at which it ends.
  struct place {
    std::size_t end;
    pinned_chunks::chunk memory;
  };

  template <class Copy>
  void for_each_part(std::size_t offset, std::byte* to, std::size_t bytes, Copy&& copy) const;
  std::size_t end() const noexcept;
  void pin_next();

  const int device_;
  std::vector<place> places_;
  std::optional<touched_chunks> touched_;
  std::size_t bytes_ = 0;  // that are going to be saved
};

}  // namespace cenote::inline v1::pool
