// Where the contents of paused memory are kept until it is resumed.
//
//     pool's pages  ──save(offset, …)──▶  parking  ──load(offset, …)──▶  new pages at the same addresses
//                                            └─────read(offset, …)──▶  the host, at any time in between
//
//     "host"       pinned memory of the host, in chunks that are kept for the next pause     host_parking
//     "file:PATH"  a file without a name in the folder PATH, which is gone with the process  file_parking
//     "peer:N"     free memory of device N, which this one reaches                           peer_parking
//     "nothing"    nowhere: what the memory holds after resuming is not known
//     "fill:B"     nowhere: each byte is B after resuming
//
// Offsets count the bytes that are saved, from 0 on; each is saved once, in rising order, and loaded at most once at a
// time. Copies from and to the device are queued on a stream of the pause, which waits for it on the host.
//
// Threads: one pause at a time uses it. It ends after the pause's last copy.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "cenote/driver/stream_ref.hpp"

namespace cenote::inline v1::pool {

class parking {
 public:
  parking() = default;
  virtual ~parking() = default;
  parking(const parking&) = delete;
  parking& operator=(const parking&) = delete;

  /// So many bytes are going to be saved: room for them may be made from now on. Throws where there is no room for
  /// them.
  virtual void make_room(std::size_t) {}

  /// Queues a copy of `bytes` from the device. What was queued on the stream by then is done before it.
  virtual void save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) = 0;

  /// Nothing more is saved, as pausing failed.
  virtual void give_up_saving() noexcept {}

  /// After the last save(): all is kept as soon as the stream's work is done.
  virtual void end_saving(stream_ref) {}

  /// Copies to memory of the host, and is done when it returns; false where nothing is kept. After the last save(), and
  /// beside no load().
  virtual bool read(std::size_t offset, std::byte* to, std::size_t bytes) = 0;

  /// Queues a copy back to the device.
  virtual void load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) = 0;

  /// After a load() that failed or was given up, and the stream's work: loading begins anew.
  virtual void restart_loading() {}
};

/// The parking that a text names, for memory of `device`. std::invalid_argument, with the names that there are, for
/// another text; std::out_of_range for a device that there is not.
std::unique_ptr<parking> make_parking(const std::string& keep, int device);

}  // namespace cenote::inline v1::pool
