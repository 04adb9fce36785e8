#include "cenote/ground/log.hpp"

#include <pthread.h>
#include <strings.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <mutex>

namespace cenote {
namespace {

constexpr const char* level_variable = "CENOTE_LOG_LEVEL";
constexpr std::array<const char*, 2> file_variables{"CENOTE_DEBUG_LOG_FILE", "RMM_DEBUG_LOG_FILE"};
constexpr log_level default_level = log_level::info;
constexpr std::array<const char*, 7> level_names{"trace", "debug", "info", "warn", "error", "critical", "off"};

const char* name_of(log_level level) noexcept { return level_names.at(static_cast<std::size_t>(level)); }

log_level level_of_environment() noexcept {
  const char* const wanted = std::getenv(level_variable);
  if (wanted == nullptr || *wanted == '\0') return default_level;
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
  std::deque<log_record> records;
  std::size_t dropped = 0;
  bool is_heard = false;
};

queue& the_queue() noexcept {
  static auto* const leaked = [] {
    pthread_atfork([] { the_queue().mutex.lock(); }, [] { the_queue().mutex.unlock(); },
                   [] {
                     the_queue().is_heard = false;
                     the_queue().records.clear();
                     the_queue().mutex.unlock();
                   });
    return new queue;
  }();
  return *leaked;
}

/// The file that the environment names; null if it names none, or one that cannot be opened. Never closed by us.
std::FILE* the_file() noexcept {
  static std::FILE* const opened = [] {
    for (const char* const variable : file_variables) {
      const char* const name = std::getenv(variable);
      if (name == nullptr || *name == '\0') continue;
      std::FILE* const file = std::fopen(name, "w");
      if (file == nullptr) std::fprintf(stderr, "cenote: the log file '%s': %s\n", name, std::strerror(errno));
      return file;
    }
    return static_cast<std::FILE*>(nullptr);
  }();
  return opened;
}

void write_to_file(std::FILE* file, log_level level, const timeval& now, long thread, const char* text) noexcept {
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  std::fprintf(file, "[%6ld][%02d:%02d:%02d:%06ld][%-6s] %s\n", thread, local.tm_hour, local.tm_min, local.tm_sec,
               static_cast<long>(now.tv_usec), name_of(level), text);
  if (level >= flush_level()) std::fflush(file);
}

void write_to_stderr(log_level level, const char* text) noexcept {
  if (level == log_level::error) {
    std::fprintf(stderr, "cenote: %s\n", text);
  } else {
    std::fprintf(stderr, "cenote: %s: %s\n", name_of(level), text);
  }
}

/// False where nobody listens.
bool enqueue(log_level level, const timeval& now, long thread, const std::string& text) {
  queue& q = the_queue();
  const std::lock_guard lock(q.mutex);
  if (!q.is_heard) return false;
  if (q.records.size() == max_queued_records) {
    q.records.pop_front();
    ++q.dropped;
  }
  const double seconds = static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_usec);
  q.records.push_back({level, seconds, thread, text});
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

void log(log_level level, const std::string& text) noexcept {
  if (!should_log(level)) return;
  try {
    timeval now{};
    gettimeofday(&now, nullptr);
    const long thread = syscall(SYS_gettid);
    const bool is_heard = enqueue(level, now, thread, text);
    std::FILE* const file = the_file();
    if (file != nullptr) {
      write_to_file(file, level, now, thread, text.c_str());
    } else if (!is_heard) {
      write_to_stderr(level, text.c_str());
    }
  } catch (...) {
    std::fputs("cenote: a line could not be logged for lack of host memory\n", stderr);
  }
}

void flush_log() noexcept {
  if (std::FILE* const file = the_file()) std::fflush(file);
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

void print_log_record(log_level level, const std::string& text) noexcept {
  if (the_file() == nullptr) write_to_stderr(level, text.c_str());
}

}  // namespace cenote
