#include "cenote/adaptors/logging_resource_adaptor.hpp"

#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <stdexcept>

#include "cenote/ground/environment.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::string_view heading = "Thread,Time,Action,Pointer,Size,Stream\n";
constexpr const char* default_name_variables[] = {"CENOTE_LOG_FILE",
                                                  "RMM_LOG_FILE"};  // programs for RMM set the latter

std::string name_or_default(const std::string& given) {
  if (!given.empty()) return given;
  for (const char* const variable : default_name_variables) {
    if (const char* const named = environment_variable(variable)) return named;
  }
  throw std::invalid_argument("the logging adaptor needs a file: give log_file_name, or set the environment variable " +
                              std::string(default_name_variables[0]));
}

std::string path_with_device(const std::string& name, int device) {
  std::filesystem::path path = std::filesystem::absolute(with_process_number(name));
  const std::string extension = path.extension().string();
  path.replace_extension();
  return path.string() + ".dev" + std::to_string(device) + extension;
}

/// `path`; std::invalid_argument if an adaptor in the stack of `resource` writes it: what goes through both would be in
/// it twice, and its memory from two sides.
const std::string& file_not_of_a_stack(std::shared_ptr<memory_resource> resource, const std::string& path) {
  const auto plain = [](const std::string& name) {
    std::error_code error;
    const auto found = std::filesystem::weakly_canonical(name, error);
    return error ? std::filesystem::path(name) : found;
  };
  for (; resource; resource = resource->upstream()) {
    const auto* const other = dynamic_cast<const logging_resource_adaptor*>(resource.get());
    if (other == nullptr) continue;
    std::error_code absent;  // equivalent() needs the file, and sees hard links
    const bool is_the_same =
        plain(other->file_name()) == plain(path) || std::filesystem::equivalent(other->file_name(), path, absent);
    if (!is_the_same) continue;
    throw std::invalid_argument("the log file '" + path +
                                "' is written by another logging adaptor of the same stack: give each its own");
  }
  return path;
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
      file_("log file", file_not_of_a_stack(this->upstream(), file_name_), output_file::sharing::alone, heading) {}

logging_resource_adaptor::~logging_resource_adaptor() {
  if (is_gone()) return;
  try {
    flush();
  } catch (const std::exception& error) {
    report_once(error.what(), "; lines are missing");
  }
}

void logging_resource_adaptor::check_file(const std::string& file_name) { name_or_default(file_name); }

void logging_resource_adaptor::flush() {
  const std::lock_guard lock(mutex_);
  if (const int error = file_.flush(); error != 0) {
    throw std::runtime_error("the log file '" + file_name_ + "' cannot be written: " + std::strerror(error));
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
  std::array<char, 160> line{};
  const int length =
      std::snprintf(line.data(), line.size(), handle == 0 ? "%ld,%s,%s,%p,%zu,%llu\n" : "%ld,%s,%s,%p,%zu,0x%llx\n",
                    thread_id(), time_of_day().data(), action, pointer, bytes, handle);
  const std::string_view whole(line.data(), static_cast<std::size_t>(length));
  if (!file_.write({&whole, 1})) report_once("the log file '", file_name_, "' cannot be written; lines are missing");
}

}  // namespace cenote::inline v1
