// The counters of this process: who holds how many bytes, and what the pools hold of each device. `cenote top` reads
// them from any process of this user, while this one runs.
//
//     header │ devices │ clients │ tags │ names of the clients │ names of the tags
//
// How it works
//   1. The counters lie in a small file that is mapped, so that to count is an addition in memory: there is no thread,
//   no socket and no call of the system. /dev/shm/cenote-<uid> has a file for each process, for this user alone; the
//   environment variable CENOTE_COUNTERS names another folder, or is "off".
//   2. A file is made when its process first counts. It is locked (flock) from then on, until the process ends, however
//   it ends. One that nobody has locked is of a process that was killed: the next process that makes one, or `cenote
//   top`, removes it. A process that exits removes its own.
//   3. All of the file is there from the start, so that a full disk is met while it is made. Where none can be had, the
//   counters lie in private memory.
//   4. A forked child goes on counting in a private copy.
//
// The layout is what `cenote.cli.counters_file` of the Python package reads. All numbers are little-endian.
//
// Threads: any. Each counter has a lock of its own and a cache line; who maps the file reads without it, so that
// figures of one counter may be of two moments.
// Cost: one short lock to count, which is cheaper than an atomic operation for each figure; 156 KiB of shared memory.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/spin_lock.hpp"

namespace cenote::inline v1 {

constexpr std::size_t most_counted_devices = 64;

/// Blocks and their bytes.
struct block_figures {
  std::uint64_t bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::uint64_t blocks = 0;
  std::uint64_t allocations = 0;  ///< made in all
};

/// The counters of one tag.
class alignas(64) tag_counters {
 public:
  void allocated(std::size_t bytes) noexcept {
    const std::lock_guard lock(lock_);
    add(bytes);
  }

  void freed(std::size_t bytes) noexcept {
    const std::lock_guard lock(lock_);
    subtract(bytes);
  }

  block_figures read() noexcept {
    const std::lock_guard lock(lock_);
    return figures_;
  }

 protected:
  void add(std::size_t bytes) noexcept {
    figures_.bytes += bytes;
    figures_.peak_bytes = std::max(figures_.peak_bytes, figures_.bytes);
    ++figures_.blocks;
    ++figures_.allocations;
  }

  void subtract(std::size_t bytes) noexcept {
    figures_.bytes -= bytes;
    --figures_.blocks;
  }

  spin_lock lock_;         // guards all below
  block_figures figures_;  // at byte 8
};

/// The counters of one client, with its bytes on each device.
class client_counters : public tag_counters {
 public:
  void allocated(std::size_t bytes, std::size_t device) noexcept {
    const std::lock_guard lock(lock_);
    add(bytes);
    bytes_of_device_[device] += bytes;
  }

  void freed(std::size_t bytes, std::size_t device) noexcept {
    const std::lock_guard lock(lock_);
    subtract(bytes);
    bytes_of_device_[device] -= bytes;
  }

 private:
  alignas(64) std::array<std::uint64_t, most_counted_devices> bytes_of_device_{};  // at byte 64
};

/// The counters of one device: what its pools hold.
class alignas(64) device_counters {
 public:
  /// A pool holds other memory than before.
  void changed(std::size_t before, std::size_t now) noexcept {
    const std::lock_guard lock(lock_);
    held_ += now - before;
    most_held_ = std::max(most_held_, held_);
    if (now > before) ++growths_;
  }

 private:
  spin_lock lock_;          // guards all below
  std::uint64_t held_ = 0;  // at byte 8
  std::uint64_t most_held_ = 0;
  std::uint64_t growths_ = 0;
};

struct process_counters {
  struct {
    std::atomic<std::uint64_t> magic;  // written last
    std::uint32_t version, process, devices, clients, tags, name_bytes;
    std::uint64_t started_since_1970_ns;
    std::array<std::uint64_t, 3> unused;
  } head{};
  std::array<device_counters, most_counted_devices> devices;
  std::array<client_counters, recorder::most_clients> clients;
  std::array<tag_counters, recorder::most_tags> tags;
  std::array<std::array<char, recorder::longest_name + 1>, recorder::most_clients + recorder::most_tags> names{};

  /// Those of this process.
  static process_counters& get() noexcept;
};
static_assert(sizeof(process_counters::head) == 64 && sizeof(device_counters) == 64 && sizeof(tag_counters) == 64);
static_assert(sizeof(client_counters) == 64 + 8 * most_counted_devices);

/// Says what a number means, as recorder::name does, which was told before.
void name_counters(recorder::names kind, std::size_t number, std::string_view text) noexcept;

}  // namespace cenote::inline v1
