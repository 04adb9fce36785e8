// The one way into the simulated driver: every exported entry point is `return call(entry_id::<symbol>, body);`.
//
// Around the body, in this order:
// 1. a forked child that inherited the driver is turned away (CUDA_ERROR_NOT_INITIALIZED), as is a host function that
//    calls back into the driver (CUDA_ERROR_NOT_PERMITTED);
// 2. the driver's mutex is taken; what a test wants to happen before the call does, with the mutex released;
// 3. the call is counted, and an armed failure is returned in its place, with no effect;
// 4. what the entry's row in entry_points.hpp asks for is checked: cuInit, a current context, no capture in the way;
// 5. the body runs; a thrown failure, or the host's own lack of memory, becomes the returned code.
// The body returns nothing (then the answer is CUDA_SUCCESS) or a CUresult.
//
// Threads: any. Bodies run under driver_mutex(); user code (host functions) runs outside it (device/work.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <type_traits>

#include "sim/ground/failure.hpp"

namespace cenote::sim {

enum class entry_id {
#define SIM_ENTRY_POINT(symbol, name, version, scope, capture) symbol,
#include "sim/entry/entry_points.hpp"
#undef SIM_ENTRY_POINT
  count
};

enum class call_scope { anytime, initialised, in_context };
enum class capture_rule { allowed, relaxed, own };

struct entry_point {
  const char* symbol;
  const char* name;
  int version;
  call_scope scope;
  capture_rule capture;
  void* address;
};

inline constexpr std::size_t entry_count = static_cast<std::size_t>(entry_id::count);

/// The rows of entry_points.hpp, in their order.
const std::array<entry_point, entry_count>& entry_points();

/// What a test does before a call.
struct call_hook {
  void (*run)(void* context) = nullptr;
  void* context = nullptr;
};

/// Counts and armed failures of one base name. Guarded by driver_mutex().
struct call_record {
  const char* name = nullptr;
  std::uint64_t calls = 0;
  int fail_in = 0;     ///< 0: not armed; 1: the next call fails
  int fail_times = 0;  ///< how many calls in a row fail then; 0: all of them
  CUresult error = CUDA_SUCCESS;
  call_hook before;  ///< once, if it has a function
};

/// The record of a base name; null for a name that the driver does not have. The caller holds driver_mutex().
call_record* find_call_record(const char* name);

/// Every record, one for each base name, in the order of the table. The caller holds driver_mutex().
struct call_record_table {
  std::array<call_record, entry_count> rows;
  std::size_t count = 0;
};
call_record_table& call_records();

/// Steps 1 to 4 above; the returned lock is held while the body runs. Throws failure.
std::unique_lock<std::mutex> enter(entry_id entry);

template <class Body>
CUresult call(entry_id entry, Body&& body) noexcept {
  try {
    const auto lock = enter(entry);
    if constexpr (std::is_void_v<std::invoke_result_t<Body>>) {
      body();
      return CUDA_SUCCESS;
    } else {
      return body();
    }
  } catch (const failure& refused) {
    return refused.code;
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
}

/// Calls what user objects of graphs have left to be called (stream/graph.hpp), with the mutex released.
void run_destructors() noexcept;

/// For what destroys graphs, and for what waits for work of them. The driver calls destructors on a thread of its own;
/// this thread is as good where it may hold no lock that a destructor wants, and in other calls a program's thread may.
template <class Body>
CUresult call_with_destructors(entry_id entry, Body&& body) noexcept {
  const CUresult result = call(entry, body);
  run_destructors();
  return result;
}

}  // namespace cenote::sim
