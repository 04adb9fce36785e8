// The logger that RMM takes, as far as RMM's users meet it: levels, messages in printf's form, and where they go.
//
// rmm::default_logger() writes to cenote's log. Threads: a logger is its program's to guard but for log().
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "log_levels.h"

namespace rapids_logger {
inline namespace over_cenote {

enum class level_enum : std::int32_t { trace, debug, info, warn, error, critical, off, n_levels };

/// Where messages go.
class sink {
 public:
  using write_function = std::function<void(level_enum level, const std::string& message)>;
  explicit sink(
      write_function write, std::function<void()> flush = [] {})
      : write_(std::move(write)), flush_(std::move(flush)) {}
  void write(level_enum level, const std::string& message) const { write_(level, message); }
  void flush() const { flush_(); }

 private:
  write_function write_;
  std::function<void()> flush_;
};
using sink_ptr = std::shared_ptr<sink>;

class ostream_sink_mt : public sink {
 public:
  explicit ostream_sink_mt(std::ostream& out, bool force_flush = false)
      : sink(
            [&out, force_flush](level_enum, const std::string& message) {
              out << message << '\n';
              if (force_flush) out.flush();
            },
            [&out] { out.flush(); }) {}
};

class basic_file_sink_mt : public sink {
 public:
  explicit basic_file_sink_mt(const std::string& name, bool truncate = false)
      : basic_file_sink_mt(std::make_shared<std::ofstream>(name, truncate ? std::ios::trunc : std::ios::app)) {}

 private:
  explicit basic_file_sink_mt(std::shared_ptr<std::ofstream> file)
      : sink([file](level_enum, const std::string& message) { *file << message << '\n'; }, [file] { file->flush(); }) {}
};

class stderr_sink_mt : public sink {
 public:
  stderr_sink_mt()
      : sink([](level_enum, const std::string& message) { std::fprintf(stderr, "%s\n", message.c_str()); }) {}
};

class null_sink_mt : public sink {
 public:
  null_sink_mt() : sink([](level_enum, const std::string&) {}) {}
};

using log_callback_t = void (*)(int level, const char* message);
using flush_callback_t = void (*)();

class callback_sink_mt : public sink {
 public:
  explicit callback_sink_mt(const log_callback_t& call, const flush_callback_t& flush = nullptr)
      : sink([call](level_enum level, const std::string& message) { call(static_cast<int>(level), message.c_str()); },
             [flush] {
               if (flush != nullptr) flush();
             }) {}
};

class logger {
 public:
  logger(std::string name, std::vector<sink_ptr> sinks) : name_(std::move(name)), sinks_(std::move(sinks)) {}
  logger(std::string name, std::ostream& out) : logger(std::move(name), {std::make_shared<ostream_sink_mt>(out)}) {}
  logger(std::string name, const std::string& file)
      : logger(std::move(name), std::vector<sink_ptr>{std::make_shared<basic_file_sink_mt>(file)}) {}

  template <typename... Arguments>
  void log(level_enum level, const std::string& format, Arguments&&... arguments) {
    if (!should_log(level)) return;
    const std::string message = formatted(format, plain(arguments)...);
    for (const sink_ptr& each : sinks_) each->write(level, message);
    if (level >= flush_level_) flush();
  }
  template <typename... Arguments>
  void trace(const std::string& format, Arguments&&... arguments) {
    log(level_enum::trace, format, arguments...);
  }
  template <typename... Arguments>
  void debug(const std::string& format, Arguments&&... arguments) {
    log(level_enum::debug, format, arguments...);
  }
  template <typename... Arguments>
  void info(const std::string& format, Arguments&&... arguments) {
    log(level_enum::info, format, arguments...);
  }
  template <typename... Arguments>
  void warn(const std::string& format, Arguments&&... arguments) {
    log(level_enum::warn, format, arguments...);
  }
  template <typename... Arguments>
  void error(const std::string& format, Arguments&&... arguments) {
    log(level_enum::error, format, arguments...);
  }
  template <typename... Arguments>
  void critical(const std::string& format, Arguments&&... arguments) {
    log(level_enum::critical, format, arguments...);
  }

  const std::vector<sink_ptr>& sinks() const { return sinks_; }
  std::vector<sink_ptr>& sinks() { return sinks_; }
  level_enum level() const { return level_; }
  void set_level(level_enum level) { level_ = level; }
  bool should_log(level_enum level) const { return level >= level_ && level < level_enum::off; }
  level_enum flush_level() const { return flush_level_; }
  void flush_on(level_enum level) { flush_level_ = level; }
  void flush() {
    for (const sink_ptr& each : sinks_) each->flush();
  }
  void set_pattern(const std::string&) {}  // cenote's log has a form of its own

 private:
  template <typename Argument>
  static decltype(auto) plain(const Argument& argument) {
    if constexpr (std::is_same_v<Argument, std::string>) {
      return argument.c_str();
    } else {
      return argument;
    }
  }

  template <typename... Arguments>
  static std::string formatted(const std::string& format, const Arguments&... arguments) {
    if constexpr (sizeof...(Arguments) == 0) {
      return format;
    } else {
      const int size = std::snprintf(nullptr, 0, format.c_str(), arguments...);
      std::string text(size > 0 ? static_cast<std::size_t>(size) : 0, '\0');
      std::snprintf(text.data(), text.size() + 1, format.c_str(), arguments...);
      return text;
    }
  }

  std::string name_;
  std::vector<sink_ptr> sinks_;
  level_enum level_ = level_enum::info;
  level_enum flush_level_ = level_enum::warn;
};

/// Another level until its end.
struct log_level_setter {
  explicit log_level_setter(logger& of, level_enum level) : logger_(of), before_(of.level()) { of.set_level(level); }
  ~log_level_setter() { logger_.set_level(before_); }

 private:
  logger& logger_;
  level_enum before_;
};

}  // namespace over_cenote
}  // namespace rapids_logger
