// The driver and its device 0, beside any allocator: streams that nobody else knows, events, and a kernel that spins.
//
// The driver's library is the one that cenote uses: libcuda.so.1, or what CENOTE_CUDA_DRIVER names. The word `sim`
// means the library that BENCH_SIM_LIBRARY names.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <optional>
#include <string>

namespace bench {

struct driver_table {
  void* library;
#define BENCH_DRIVER_CALL(name) decltype(&::name) name;
#include "driver_calls.inc"
#undef BENCH_DRIVER_CALL
};

/// The calls, with the primary context of device 0 current on this thread; std::runtime_error where there is none.
const driver_table& driver();

void check(CUresult result, const char* call);

bool is_simulated();
std::string device_name();

/// Driver calls of this process so far; only the simulated driver counts them.
std::optional<double> calls_so_far();

/// Bytes of the device that are free.
std::size_t free_bytes();

/// Waits for all work of the device.
void finish_all_work();

class foreign_stream {
 public:
  foreign_stream();
  ~foreign_stream();
  foreign_stream(const foreign_stream&) = delete;
  foreign_stream& operator=(const foreign_stream&) = delete;
  CUstream handle() const noexcept { return handle_; }

 private:
  CUstream handle_ = nullptr;
};

class event {
 public:
  event();
  ~event();
  event(const event&) = delete;
  event& operator=(const event&) = delete;
  CUevent handle() const noexcept { return handle_; }

 private:
  CUevent handle_ = nullptr;
};

/// A kernel of one thread that runs for a given time. std::runtime_error on the simulated driver.
class spin_kernel {
 public:
  spin_kernel();
  ~spin_kernel();
  spin_kernel(const spin_kernel&) = delete;
  spin_kernel& operator=(const spin_kernel&) = delete;

  /// Queues it on `stream`; it writes one word to `target`, so that it uses the memory.
  void launch(CUstream stream, void* target, std::size_t nanoseconds) const;

 private:
  CUmodule module_ = nullptr;
  CUfunction function_ = nullptr;
};

}  // namespace bench
