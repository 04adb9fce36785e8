// An adaptor of cenote's that writes a line for each allocation and free to the sinks of a logger.
//
// Beside cenote's own, which writes to a file whose name has the device in it, this is what RMM's has: the file by its
// name, a stream, or several sinks. Threads: one line at a time.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <rapids_logger/logger.hpp>
#include <rmm/detail/export.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cenote/resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace detail {

class logging_to_sinks final : public cenote::resource_adaptor {
 public:
  static constexpr const char* header = "Thread,Time,Action,Pointer,Size,Stream";

  logging_to_sinks(std::shared_ptr<cenote::memory_resource> upstream, std::vector<rapids_logger::sink_ptr> sinks,
                   bool auto_flush)
      : resource_adaptor(std::move(upstream), "logging"), logger_("RMM", std::move(sinks)) {
    if (auto_flush) logger_.flush_on(rapids_logger::level_enum::info);
    logger_.info(header);
  }

  std::string kind() const override { return "logging"; }

  void flush() {
    const std::lock_guard lock(mutex_);
    logger_.flush();
  }

 private:
  void* do_allocate(cenote::stream_ref stream, std::size_t bytes, std::size_t alignment) override {
    void* const pointer = pass_on(stream, bytes, alignment);
    write(pointer != nullptr ? "allocate" : "allocate failure", pointer, bytes, stream);
    return pointer;
  }

  void do_deallocate(cenote::stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override {
    write("free", pointer, bytes, stream);
    pass_on(stream, pointer, bytes, alignment);
  }

  void write(const char* action, const void* pointer, std::size_t bytes, cenote::stream_ref stream) {
    std::timespec now{};
    std::tm parts{};
    std::timespec_get(&now, TIME_UTC);
    localtime_r(&now.tv_sec, &parts);
    std::array<char, 192> line{};
    std::snprintf(line.data(), line.size(), "%d,%02d:%02d:%02d.%06ld,%s,%p,%zu,%p", static_cast<int>(gettid()),
                  parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1000, action, pointer, bytes,
                  static_cast<const void*>(stream.value()));
    const std::lock_guard lock(mutex_);
    logger_.info(std::string(line.data()));
  }

  std::mutex mutex_;  // guards logger_
  rapids_logger::logger logger_;
};

}  // namespace detail
RMM_NAMESPACE_END
