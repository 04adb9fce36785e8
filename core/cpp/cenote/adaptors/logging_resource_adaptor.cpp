#include "cenote/adaptors/logging_resource_adaptor.hpp"

#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <stdexcept>

#include "cenote/ground/process.hpp"

namespace cenote {
namespace {

constexpr const char* default_name_variables[] = {"CENOTE_LOG_FILE",
                                                  "RMM_LOG_FILE"};  // programs for RMM set the latter

std::string name_or_default(const std::string& given) {
  if (!given.empty()) return given;
  for (const char* const variable : default_name_variables) {
    const char* const named = std::getenv(variable);
    if (named != nullptr && *named != '\0') return named;
  }
  throw std::invalid_argument("the logging adaptor needs a file: give log_file_name, or set the environment variable " +
                              std::string(default_name_variables[0]));
}

std::string path_with_device(const std::string& name, int device) {
  std::filesystem::path path = std::filesystem::absolute(name);
  const std::string extension = path.extension().string();
  path.replace_extension();
  return path.string() + ".dev" + std::to_string(device) + extension;
}

/// "HH:MM:SS.ffffff", local time.
std::array<char, 32> time_of_day() {
  timeval now{};
  gettimeofday(&now, nullptr);
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%02d:%02d:%02d.%06ld", local.tm_hour, local.tm_min, local.tm_sec,
                static_cast<long>(now.tv_usec));
  return text;
}

}  // namespace

logging_resource_adaptor::logging_resource_adaptor(std::shared_ptr<memory_resource> upstream,
                                                   const std::string& file_name)
    : resource_adaptor(std::move(upstream), "logging"),
      named_(name_or_default(file_name)),
      file_name_(path_with_device(named_, device())),
      file_(std::fopen(file_name_.c_str(), "w"), &std::fclose) {
  if (!file_) throw std::runtime_error("the log file '" + file_name_ + "' cannot be opened: " + std::strerror(errno));
  std::fputs("Thread,Time,Action,Pointer,Size,Stream\n", file_.get());
}

logging_resource_adaptor::~logging_resource_adaptor() = default;

void logging_resource_adaptor::flush() {
  const std::lock_guard lock(mutex_);
  if (std::fflush(file_.get()) != 0) {
    throw std::runtime_error("the log file '" + file_name_ + "' cannot be written: " + std::strerror(errno));
  }
}

void* logging_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = pass_on(stream, bytes, alignment);
  write(pointer != nullptr ? "allocate" : "allocate failure", pointer, bytes, stream);
  return pointer;
}

void logging_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                             std::size_t alignment) {
  write("free", pointer, bytes, stream);
  pass_on(stream, pointer, bytes, alignment);
}

void logging_resource_adaptor::write(const char* action, const void* pointer, std::size_t bytes,
                                     stream_ref stream) noexcept {
  const auto handle = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(stream.value()));
  const std::lock_guard lock(mutex_);
  const int written = std::fprintf(file_.get(), handle == 0 ? "%ld,%s,%s,%p,%zu,%llu\n" : "%ld,%s,%s,%p,%zu,0x%llx\n",
                                   thread_id(), time_of_day().data(), action, pointer, bytes, handle);
  if (written < 0) report_once("the log file '", file_name_, "' cannot be written; lines are missing");
}

}  // namespace cenote
