// What the core says of itself: one line a matter, of a level, to whoever listens.
//
//     log(level, text) ── below the level? ──► nothing, after one load of an atomic
//         │
//         ├── somebody listens ──► queue ──► take_log_records(), in the listener's own thread (Python's `logging`)
//         ├── a file is named  ──► the file, as RMM writes it: [thread][time][level ] text
//         └── neither          ──► stderr: "cenote: text", with the level between them if it is not an error
//
// 1. The level is `info` until it is set; the environment variable CENOTE_LOG_LEVEL names another one for the start.
// 2. CENOTE_DEBUG_LOG_FILE, else RMM_DEBUG_LOG_FILE, names the file; it is opened by the first line, and begun anew by
//    it if no other process is writing there (output_file.hpp). "%p" in the name is the number of the process.
// 3. The core never calls a listener: it enqueues and goes on. So a line may be logged under any lock of the core, and
//    a listener may need the GIL, its own locks and cenote itself to do with the lines what it likes.
// 4. The queue is bounded. When it is full its oldest line goes, and the listener is told how many went.
// 5. A line that goes to stderr or to a file needs no memory of the host: it is written from its parts, to stderr by
//    one call of the system. One for which the queue has no memory goes where it would if nobody listened.
//
// Threads: all functions from any thread. One mutex guards the queue; it is a leaf, nothing is called under it. A
// forked child, which does not have the listener's thread, has no listener.
// Cost: a line that is not wanted, one relaxed load. Callers build their text after should_log.
#pragma once

#include <atomic>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/ground/text_part.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// RMM's levels. A line is of one up to `critical`; `off` and `n_levels` are levels that no line reaches.
enum class log_level : int { trace, debug, info, warn, error, critical, off, n_levels };

namespace log_state {
CENOTE_EXPORT extern std::atomic<log_level> level;
}

inline log_level logging_level() noexcept { return log_state::level.load(std::memory_order_relaxed); }
CENOTE_EXPORT void set_logging_level(log_level level) noexcept;

/// Lines of this level or above are written through to the file at once.
CENOTE_EXPORT log_level flush_level() noexcept;
CENOTE_EXPORT void set_flush_level(log_level level) noexcept;

/// Whether a line of this level would be logged.
inline bool should_log(log_level level) noexcept { return level >= logging_level() && level < log_level::off; }

/// The parts make one line.
CENOTE_EXPORT void log_text(log_level level, std::initializer_list<text_part> parts) noexcept;

template <class... Parts>
void log(log_level level, const Parts&... parts) noexcept {
  log_text(level, {text_part(parts)...});
}

/// Writes the lines that are still buffered to the file.
CENOTE_EXPORT void flush_log() noexcept;

struct log_record {
  log_level level;
  double time;  ///< seconds since 1970, UTC
  long thread;  ///< the kernel's number of the thread that logged it
  std::string text;
};

constexpr std::size_t max_queued_records = 4096;

/// From now on lines are queued for a listener, instead of written to stderr; or not any more.
CENOTE_EXPORT void start_listening();
CENOTE_EXPORT void stop_listening() noexcept;

/// Waits until there are lines, or nobody listens any more: then it is false.
CENOTE_EXPORT bool wait_for_log_records();

/// The queued lines, oldest first.
CENOTE_EXPORT std::vector<log_record> take_log_records();

/// To stderr, as where nobody listens; nowhere if a file has the lines. For a listener who has no better place.
CENOTE_EXPORT void print_log_record(log_level level, std::string_view text) noexcept;

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
