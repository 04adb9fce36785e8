// What cenote tells NVIDIA's tools while they watch: ranges for Nsight Systems, sub-allocations for compute-sanitizer.
//
// CENOTE_NVTX=1 in the environment, read when the library is loaded, switches it on. Everything is in the domain
// `cenote`; each range is on the thread that calls, and has the bytes as its payload.
//
//   allocate, deallocate   the outermost call of a thread; what it asks of others in turn is not said again
//   grow                   within an allocate: memory that a pool takes from the driver
//   trim                   unused memory is given back
//   out_of_memory          a mark: memory ran out at the public edge
//
// A block that a pool hands out is announced as a region of the driver's allocation that it lies in (nvtx_memory.hpp).
//
// Threads: all functions from any thread; `here` is each thread's own.
// Cost: off, one load and a branch a call; on, what the tool takes.
#pragma once

#include <atomic>
#include <cstddef>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1::nvtx {

CENOTE_EXPORT extern std::atomic<bool> switched_on;

inline bool is_on() noexcept { return switched_on.load(std::memory_order_relaxed); }

/// A mark with bytes.
void mark(const char* what, std::size_t bytes) noexcept;

/// Unused memory goes back while it lives; `bytes` are to be kept. One within another is not said.
class trim_range {
 public:
  explicit trim_range(std::size_t bytes) noexcept;
  ~trim_range();
  trim_range(const trim_range&) = delete;
  trim_range& operator=(const trim_range&) = delete;

 private:
  bool counted_;
  bool is_said_ = false;
};

/// What a resource does with what it is asked for.
enum class role {
  passes_on,        ///< an adaptor: its upstream answers
  cuts,             ///< a pool: out of larger memory of its own
  asks_the_driver,  ///< it has no upstream
};

/// A call of allocate or deallocate while it lives. Only where is_on().
class call {
 public:
  enum class verb { allocate, deallocate };

  call(verb what, role of, std::size_t bytes) noexcept;
  ~call();
  call(const call&) = delete;
  call& operator=(const call&) = delete;

  /// The outermost one, of a stack with a resource that cuts: its block is part of a larger allocation.
  bool is_of_a_part() const noexcept;

 private:
  role role_;
  bool is_outermost_;
  bool is_said_;
};

}  // namespace cenote::inline v1::nvtx
