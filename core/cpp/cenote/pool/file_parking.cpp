#include "cenote/pool/file_parking.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1::pool {
namespace {

constexpr std::size_t part_bytes = pinned_chunks::least_bytes;

/// Direct writes and reads need sizes and offsets that are multiples of this.
constexpr std::size_t disk_block_bytes = 4096;

/// A file with a name that is taken away at once, where the file system makes none without.
int make_named(const std::string& folder) {
  std::string name = folder + "/cenote-paused-XXXXXX";
  const int made = mkostemp(name.data(), O_CLOEXEC);
  if (made >= 0) unlink(name.c_str());
  return made;
}

file_descriptor make_file(const std::string& folder) {
  constexpr int how = O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC;
  int made = open(folder.c_str(), how | O_DIRECT, 0600);
  if (made < 0 && errno == EINVAL) made = open(folder.c_str(), how, 0600);
  if (made < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) made = make_named(folder);
  return file_descriptor(made);
}

/// Goes on until all is moved; errno's number, or 0.
template <class Move>
int move_all(std::byte* at, std::size_t bytes, std::size_t place, Move&& move) {
  while (bytes != 0) {
    const ssize_t moved = move(at, bytes, static_cast<off_t>(place));
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return EIO;
    at += moved;
    place += static_cast<std::size_t>(moved);
    bytes -= static_cast<std::size_t>(moved);
  }
  return 0;
}

}  // namespace

file_parking::file_parking(int device, std::string folder)
    : device_(device), folder_(std::move(folder)), file_(make_file(folder_)) {
  if (!file_) fail("cannot be made", errno);
}

void file_parking::fail(const char* what, int error) const {
  throw std::runtime_error("the file of paused memory in '" + folder_ + "' " + what + ": " + std::strerror(error));
}

void file_parking::make_room(std::size_t bytes) {
  bytes_ = align_up(bytes, disk_block_bytes);
  if (bytes_ == 0) return;
  if (const int error = posix_fallocate(file_.value(), 0, static_cast<off_t>(bytes_)); error != 0) {
    fail("has no room", error);
  }
  for (window& each : windows_) {
    each.memory = pinned_chunks::get().take(device_, part_bytes);
    if (!each.memory) throw out_of_memory("pinned memory of the host", part_bytes, {});
  }
}

void file_parking::save(std::size_t offset, const std::byte* from, std::size_t bytes, stream_ref stream) {
  for (std::size_t done = 0; done != bytes;) {
    const std::size_t part = (offset + done) / part_bytes;
    const std::size_t place = (offset + done) % part_bytes;
    const std::size_t count = std::min(bytes - done, part_bytes - place);
    window& filled = window_of(part);
    if (filled.part != part) {
      write_out(filled);
      filled.part = part;
    }
    copy_pages_async(filled.memory.at() + place, from + done, count, stream, device_);
    filled.used = event::record(stream, device_);
    done += count;
  }
}

void file_parking::end_saving(stream_ref) {
  for (window& each : windows_) write_out(each);
  restart_loading();
}

/// Once the device has filled it.
void file_parking::write_out(window& filled) {
  if (!filled.part) return;
  filled.used->synchronize();
  const std::size_t place = *filled.part * part_bytes;
  const int error =
      move_all(filled.memory.at(), std::min(part_bytes, bytes_ - place), place,
               [this](std::byte* at, std::size_t bytes, off_t to) { return pwrite(file_.value(), at, bytes, to); });
  if (error != 0) fail("cannot be written", error);
  filled.part.reset();
}

/// Calls `copy(to, from, bytes, window)` for each stretch that lies in one window, once the file was read into it.
template <class Copy>
void file_parking::for_each_part(std::size_t offset, std::byte* to, std::size_t bytes, Copy&& copy) {
  for (std::size_t done = 0; done != bytes;) {
    const std::size_t part = (offset + done) / part_bytes;
    const std::size_t place = (offset + done) % part_bytes;
    const std::size_t count = std::min(bytes - done, part_bytes - place);
    window& wanted = window_of(part);
    if (wanted.part != part) read_in(wanted, part);
    copy(to + done, wanted.memory.at() + place, count, wanted);
    done += count;
  }
}

bool file_parking::read(std::size_t offset, std::byte* to, std::size_t bytes) {
  for_each_part(offset, to, bytes, [](std::byte* at, const std::byte* from, std::size_t count, const window&) {
    std::memcpy(at, from, count);
  });
  return true;
}

void file_parking::load(std::size_t offset, std::byte* to, std::size_t bytes, stream_ref stream) {
  for_each_part(offset, to, bytes, [&](std::byte* at, const std::byte* from, std::size_t count, window& wanted) {
    copy_pages_async(at, from, count, stream, device_);
    wanted.used = event::record(stream, device_);
  });
}

/// Once the device has read what lies there.
void file_parking::read_in(window& wanted, std::size_t part) {
  if (wanted.used != nullptr) wanted.used->synchronize();
  wanted.part.reset();
  const std::size_t place = part * part_bytes;
  const int error =
      move_all(wanted.memory.at(), std::min(part_bytes, bytes_ - place), place,
               [this](std::byte* at, std::size_t bytes, off_t from) { return pread(file_.value(), at, bytes, from); });
  if (error != 0) fail("cannot be read", error);
  wanted.part = part;
}

void file_parking::restart_loading() {
  for (window& each : windows_) {
    each.part.reset();
    each.used = nullptr;
  }
}

}  // namespace cenote::inline v1::pool
