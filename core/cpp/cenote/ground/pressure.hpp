// Pressure handlers: functions of the program that free memory when an allocation finds none.
//
//     resource has no memory ──► handler of the highest priority ──► try again ──► next handler ──► try again ──► throw
//
// How it works
//   1. A failed allocation calls the handlers one after the other, the highest priority first and the oldest of one
//   priority first, and tries again after each that may have freed something. It ends with the first try that succeeds.
//   2. A handler is told the bytes that are needed and the device, and says how many it has freed; nothing, if it does
//   not know. One that has freed 0 bytes, or that was skipped, gives no reason to try again.
//   3. A handler may allocate and free, and add and remove handlers. Where such an allocation fails in turn, no handler
//   is called for it.
//
// Threads: any. No lock is held while a handler runs: two threads may call one at a time each. A handler that was
// removed may still be running when remove_pressure_handler returns, if another thread has called it. Cost: nothing
// before memory runs out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cenote/ground/error.hpp"
#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// What a handler has done.
struct relief {
  std::optional<std::size_t> freed_bytes;  ///< nothing: it does not know
  std::string why_not;                     ///< why it did not do all it could; empty if it did

  relief() = default;
  relief(std::size_t freed) : freed_bytes(freed) {}  // implicit: what a handler of C++ returns
  static relief skipped(const std::string& why) {
    relief none(0);
    none.why_not = "skipped: " + why;
    return none;
  }
};

using pressure_handler = std::function<relief(std::size_t bytes, int device)>;

/// The number of a handler.
using pressure_handler_id = std::uint64_t;

/// Has `handler` called when memory runs out. `name` is what errors and figures call it. std::invalid_argument if it is
/// empty.
CENOTE_EXPORT pressure_handler_id add_pressure_handler(std::string name, pressure_handler handler, int priority = 0);

/// False if there is none of that number.
CENOTE_EXPORT bool remove_pressure_handler(pressure_handler_id handler) noexcept;

struct pressure_handler_figures {
  pressure_handler_id id;
  std::string name;
  int priority;
  std::uint64_t calls;        ///< those included that were skipped or failed
  std::uint64_t skipped;      ///< it says why it did not do all it could
  std::uint64_t failures;     ///< it threw
  std::uint64_t successes;    ///< the try after it had memory
  std::uint64_t freed_bytes;  ///< as it said
};

/// Every handler, in the order in which they are called.
CENOTE_EXPORT std::vector<pressure_handler_figures> pressure_handlers();

/// Calls the handlers until `retry` says that it has memory. Returns what each of them did. What `retry` throws is
/// thrown.
CENOTE_EXPORT std::vector<relief_step> relieve_pressure(std::size_t bytes, int device,
                                                        const std::function<bool()>& retry);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
