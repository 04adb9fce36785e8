// What several processes hold of one device together: an account in a file that all of them map.
//
//     file:  version | asked | held[0] held[1] … held[255]        one place for each process, locked while it lives
//
// How it works
//   1. A process takes a place by a lock on that byte of the file, which the system releases when the process has
//   ended,
//      however it ended: a place that nobody has locked counts for nothing.
//   2. It adds to its own place first and sums up all places then. So of processes that take the last bytes at a time
//      each sees the others, and all of them together never pass a limit.
//   3. ask() tells the others that a process has found no room; they look at asked() now and then.
//
// Threads: any. Processes: those that can open the file, in whatever containers.
// Cost: an addition to take; to sum up, a call of the system for each other process that holds something.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cenote::inline v1 {

class shared_account {
 public:
  static constexpr std::size_t max_processes = 256;

  /// Keeps `file`, an open descriptor of a file of this user's, also where it throws. std::runtime_error for a file
  /// that is no account, or where every place is taken. Never destroyed: threads may be adding.
  static shared_account& join(int file);

  void add(std::size_t bytes) noexcept;
  void subtract(std::size_t bytes) noexcept;

  /// Bytes that all processes hold that live.
  std::size_t total() const noexcept;

  void ask() noexcept;
  std::uint32_t asked() const noexcept;

  /// Holds nothing any more.
  void leave() noexcept;

 private:
  struct layout;

  shared_account(layout& mapped, int file, std::size_t place) noexcept : mapped_(mapped), file_(file), place_(place) {}

  layout& mapped_;
  int file_;
  std::size_t place_;
  shared_account* joined_before_ = nullptr;  // all are in one list, so that no tool takes one for lost
};

}  // namespace cenote::inline v1
