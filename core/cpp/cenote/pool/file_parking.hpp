// Contents of paused memory in a file without a name, in a folder: it is gone with the process, however that ends.
//
//     device ──copy──▶ chunk 1 ──write──▶ file         while one chunk is filled by the device, the other is written,
//            ──copy──▶ chunk 2 ──write──▶               and the same when it is read
//
// How it works
//   1. The file takes its room on the disk before anything is copied, so that a full disk is known then.
//   2. It is written and read past the host's cache where the file system can do that (O_DIRECT): in parts of 32
//      MiB, at multiples of that size.
//   3. What is loaded is read part by part, in the order in which it was saved; other reads take the same two chunks.
//
// Threads: as parking. Cost: that of the disk; the host waits for it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "cenote/driver/event.hpp"
#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/ground/file_descriptor.hpp"
#include "cenote/pool/parking.hpp"

namespace cenote::inline v1::pool {

class file_parking final : public parking {
 public:
  /// Makes the file. Throws std::runtime_error, with what the system says.
  file_parking(int device, std::string folder);

  /// Throws std::runtime_error where the disk has no room, out_of_memory where the host has none for two chunks.
  void make_room(std::size_t bytes) override;
  void save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) override;
  void end_saving(stream_ref stream) override;
  bool read(std::size_t offset, std::byte* to, std::size_t bytes) override;
  void load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) override;
  void restart_loading() override;

 private:
  /// A chunk of pinned memory, which part of the file lies in it, and the copy to or from it that was queued last.
  struct window {
    pinned_chunks::chunk memory;
    std::optional<std::size_t> part;
    std::shared_ptr<event> used;
  };

  window& window_of(std::size_t part) noexcept { return windows_[part % windows_.size()]; }
  template <class Copy>
  void for_each_part(std::size_t offset, std::byte* to, std::size_t bytes, Copy&& copy);
  void write_out(window& filled);
  void read_in(window& wanted, std::size_t part);
  [[noreturn]] void fail(const char* what, int error) const;

  const int device_;
  const std::string folder_;
  file_descriptor file_;
  std::size_t bytes_ = 0;  // of the file
  std::array<window, 2> windows_;
};

}  // namespace cenote::inline v1::pool
