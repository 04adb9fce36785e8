// Writes one line of CSV for each allocation and free, in the form of RMM's logging adaptor:
//
//     Thread,Time,Action,Pointer,Size,Stream
//     4711,12:05:59.123456,allocate,0x7f5c00000000,1024,0x1
//
// Time is local wall-clock time. Actions are `allocate`, `allocate failure` (the pointer is then `(nil)`) and `free`.
// An `allocate` line is written after the upstream returned and a `free` line before it is called, so that the life of
// one pointer never overlaps the next in file order. Size is what was asked for, in bytes.
//
// Adaptors that log to one file write to it together, line by line; each new one begins the file anew.
//
// Threads: `mutex_` guards the order of the lines; the upstream is not called under it.
// Cost: one formatted line, buffered; flush(), the destructor or the end of the process writes it out.
#pragma once

#include <memory>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/output_file.hpp"
#include "cenote/ground/quoted.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class logging_resource_adaptor final : public resource_adaptor {
 public:
  /// Begins the file anew that `file_name` names, with ".dev<device>" put before its extension and the number of the
  /// process in place of "%p". An empty name means the environment variable CENOTE_LOG_FILE, or else RMM_LOG_FILE.
  /// Throws std::invalid_argument if neither is set, or if an adaptor of `upstream` writes the file; std::runtime_error
  /// if it cannot be opened, or while another process writes it.
  logging_resource_adaptor(std::shared_ptr<memory_resource> upstream, const std::string& file_name);
  ~logging_resource_adaptor() override;

  /// Throws as the constructor does where no file is named; opens none.
  static void check_file(const std::string& file_name);

  void flush();

  /// The absolute path that is written, with the device in it.
  const std::string& file_name() const noexcept { return file_name_; }

  std::string kind() const override { return "logging"; }
  std::string specification() const override { return spell_specification(kind(), {"file=" + quoted(named_, ",|")}); }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void write(const char* action, const void* pointer, std::size_t bytes, stream_ref stream) noexcept;

  std::string named_;
  std::string file_name_;
  object_mutex mutex_;
  output_file file_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
