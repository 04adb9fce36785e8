#include "cenote/ground/log.hpp"

#include <pthread.h>
#include <strings.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <ctime>
#include <list>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "cenote/ground/environment.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/output_file.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr const char* level_variable = "CENOTE_LOG_LEVEL";
constexpr std::array<const char*, 2> file_variables{"CENOTE_DEBUG_LOG_FILE", "RMM_DEBUG_LOG_FILE"};
constexpr log_level default_level = log_level::info;
constexpr std::array<const char*, 7> level_names{"trace", "debug", "info", "warn", "error", "critical", "off"};

const char* name_of(log_level level) noexcept { return level_names.at(static_cast<std::size_t>(level)); }

log_level level_of_environment() noexcept {
  const char* const wanted = environment_variable(level_variable);
  if (wanted == nullptr) return default_level;
  for (std::size_t i = 0; i < level_names.size(); ++i) {
    if (strcasecmp(wanted, level_names[i]) == 0) return static_cast<log_level>(i);
  }
  std::fprintf(stderr, "cenote: %s is '%s': it must be trace, debug, info, warn, error, critical or off\n",
               level_variable, wanted);
  return default_level;
}

std::atomic<log_level> flush_from{log_level::warn};

struct queue {
  std::mutex mutex;  // guards all that follows
  std::condition_variable arrived;
  std::list<log_record> records;  // which asks for no memory before there is one
  std::size_t dropped = 0;
  bool is_heard = false;
};

queue& the_queue() noexcept {
  static immortal<queue> the_one;
  [[maybe_unused]] static const int registered =
      pthread_atfork([] { the_queue().mutex.lock(); }, [] { the_queue().mutex.unlock(); },
                     [] {
                       queue& q = the_queue();
                       q.is_heard = false;
                       q.records.clear();
                       q.dropped = 0;
                       new (&q.arrived) std::condition_variable;  // the old one counts on a listener who is not there
                       q.mutex.unlock();
                     });
  return *the_one;
}

[[maybe_unused]] const queue& queue_made_while_there_is_one_thread =
    the_queue();  // none waits in a forked child for it to be made

/// Opens the file that the environment names; null if it names none, or one that cannot be opened. Throws
/// std::bad_alloc.
output_file* open_file() {
  for (const char* const variable : file_variables) {
    const char* const name = environment_variable(variable);
    if (name == nullptr) continue;
    try {
      return new output_file("log file", with_process_number(name), output_file::sharing::shared);
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "cenote: %s\n", error.what());
      return nullptr;
    }
  }
  return nullptr;
}

constinit std::atomic<unsigned> opened_in{~0U};  // the process_generation(): a forked child opens its own
constinit std::atomic<output_file*> opened{nullptr};

/// The file that the environment names, as opened by the first line; null if there is none. Never closed.
output_file* the_file() noexcept {
  const unsigned here = process_generation();
  if (opened_in.load(std::memory_order_acquire) == here) return opened.load(std::memory_order_relaxed);
  try {
    output_file* before = opened.load(std::memory_order_relaxed);
    output_file* const fresh = open_file();
    if (!opened.compare_exchange_strong(before, fresh)) delete fresh;  // another thread's: both are of one writer
    opened_in.store(here, std::memory_order_release);
    return opened;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

using text_parts = std::initializer_list<text_part>;

constexpr std::size_t most_parts = 32;  // of a line; further ones are left out

void write_to_file(output_file& file, log_level level, const timeval& now, long thread, text_parts parts) noexcept {
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  std::array<char, 80> head{};
  std::snprintf(head.data(), head.size(), "[%6ld][%02d:%02d:%02d:%06ld][%-6s] ", thread, local.tm_hour, local.tm_min,
                local.tm_sec, static_cast<long>(now.tv_usec), name_of(level));
  std::array<std::string_view, most_parts> line{head.data()};
  std::size_t count = 1;
  for (const text_part& part : parts) {
    if (count + 1 < line.size()) line[count++] = part.text();
  }
  line[count++] = "\n";
  file.write({line.data(), count});
  if (level >= flush_level()) file.flush();
}

/// All that is given, in as few calls as the system needs; what cannot be written is lost.
void write_all(int descriptor, iovec* pieces, std::size_t count) noexcept {
  while (count != 0) {
    const ssize_t result = writev(descriptor, pieces, static_cast<int>(count));
    if (result < 0 && errno == EINTR) continue;
    if (result < 0) return;
    auto written = static_cast<std::size_t>(result);
    for (; count != 0 && written >= pieces->iov_len; ++pieces, --count) written -= pieces->iov_len;
    if (count == 0) return;
    pieces->iov_base = static_cast<char*>(pieces->iov_base) + written;
    pieces->iov_len -= written;
  }
}

void write_to_stderr(log_level level, text_parts parts) noexcept {
  std::array<iovec, most_parts> pieces;
  std::size_t count = 0;
  const auto add = [&](std::string_view text) {
    if (count < pieces.size()) pieces[count++] = {const_cast<char*>(text.data()), text.size()};  // it is only read
  };
  add("cenote: ");
  if (level != log_level::error) {
    add(name_of(level));
    add(": ");
  }
  for (const text_part& part : parts) add(part.text());
  count = std::min(count, pieces.size() - 1);
  add("\n");
  const int before = errno;
  write_all(STDERR_FILENO, pieces.data(), count);
  errno = before;
}

/// False where nobody listens. Throws std::bad_alloc.
bool enqueue(log_level level, const timeval& now, long thread, text_parts parts) {
  queue& q = the_queue();
  const std::lock_guard lock(q.mutex);
  if (!q.is_heard) return false;
  if (q.records.size() == max_queued_records) {
    q.records.pop_front();
    ++q.dropped;
  }
  const double seconds = static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_usec);
  std::string text;
  for (const text_part& part : parts) text += part.text();
  q.records.push_back({level, seconds, thread, std::move(text)});
  q.arrived.notify_one();
  return true;
}

}  // namespace

namespace log_state {
std::atomic<log_level> level{level_of_environment()};
}

void set_logging_level(log_level level) noexcept { log_state::level.store(level, std::memory_order_relaxed); }
log_level flush_level() noexcept { return flush_from.load(std::memory_order_relaxed); }
void set_flush_level(log_level level) noexcept { flush_from.store(level, std::memory_order_relaxed); }

void log_text(log_level level, text_parts parts) noexcept {
  if (!should_log(level)) return;
  timeval now{};
  gettimeofday(&now, nullptr);
  const long thread = syscall(SYS_gettid);
  bool is_heard = false;
  try {
    is_heard = enqueue(level, now, thread, parts);
  } catch (const std::bad_alloc&) {  // of the host's memory: the line goes where it would if nobody listened
  }
  if (output_file* const file = the_file()) {
    write_to_file(*file, level, now, thread, parts);
  } else if (!is_heard) {
    write_to_stderr(level, parts);
  }
}

void flush_log() noexcept {
  if (output_file* const file = the_file()) file->flush();
}

void start_listening() {
  queue& q = the_queue();
  const std::lock_guard lock(q.mutex);
  q.is_heard = true;
}

void stop_listening() noexcept {
  queue& q = the_queue();
  const std::lock_guard lock(q.mutex);
  q.is_heard = false;
  q.arrived.notify_all();
}

bool wait_for_log_records() {
  queue& q = the_queue();
  std::unique_lock lock(q.mutex);
  q.arrived.wait(lock, [&] { return !q.records.empty() || !q.is_heard; });
  return q.is_heard;
}

std::vector<log_record> take_log_records() {
  queue& q = the_queue();
  const std::lock_guard lock(q.mutex);
  std::vector<log_record> taken;
  taken.reserve(q.records.size() + 1);
  if (q.dropped != 0) {
    const log_record& oldest = q.records.front();
    taken.push_back({log_level::warn, oldest.time, oldest.thread,
                     std::to_string(q.dropped) + " lines before this one were dropped: nobody took them in time"});
    q.dropped = 0;
  }
  taken.insert(taken.end(), std::make_move_iterator(q.records.begin()), std::make_move_iterator(q.records.end()));
  q.records.clear();
  return taken;
}

void print_log_record(log_level level, std::string_view text) noexcept {
  if (the_file() == nullptr) write_to_stderr(level, {text});
}

}  // namespace cenote::inline v1
