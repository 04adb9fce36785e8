// A file to which cenote writes lines: the log of allocations, the debug log, the map of an arena.
//
//     two adaptors, one file ──► one writer ──► a buffer of whole lines ──► write(), at the end of the file
//
// How it works
//   1. A process has one writer for a file, however often it is opened and by whatever name: lines stay whole.
//   2. A file is `alone` this process's: opening it begins it anew, also for those that have it open already, and fails
//      while another process writes it. Or it is `shared`: whoever opens it first begins it anew, and others, of this
//      process and of others, write to it as well. `appended` is shared, and never begun anew. A lock on the file
//      (flock) says whether another process writes it; a file system without locks has nothing to say.
//   3. Lines lie in the buffer until it is full, flush() is called, the last owner goes or the process exits.
//   4. A forked child has none of its parent's files: what is buffered is the parent's, and is written by the parent.
//   5. A link is followed if root made it or this user, so that nobody else chooses what is overwritten; in secure
//      execution (environment.hpp) none is. /dev/stdout, /dev/stderr, /dev/fd/N and /proc/self/fd/N are what is open
//      there, as /proc/1/fd/1 is in another process, and are never begun anew.
//
// Threads: any. The writer's mutex guards its buffer and the order of its lines.
// Cost: a copy into the buffer; a system call for 8 KiB. Needs no memory after it has been opened.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1 {

/// A descriptor that may be written to, as opened by rule 5, or why there is none.
struct opened_file {
  int descriptor = -1;
  bool is_inherited = false;  ///< it was open already, under a name such as /dev/stdout
  int error = 0;              ///< of errno
  std::string why;
};

/// Opens a file for writing at its end, and makes it if there is none. What it has stays.
CENOTE_EXPORT opened_file open_for_writing(const std::string& path);

/// Opens a file to be mapped, which is made, for this user alone, if there is none. No link is followed. Returns the
/// descriptor; -1, and errno says why.
int open_for_mapping(const std::string& path) noexcept;

class output_file {
 public:
  enum class sharing { alone, shared, appended };

  /// Throws std::runtime_error: "the <what> '<path>' cannot be opened: <why>". `heading` begins the file.
  output_file(const char* what, const std::string& path, sharing with, std::string_view heading = {});
  ~output_file();
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;

  /// Adds these, as one piece. False if they, or what lay before them in the buffer, could not be written.
  bool write(std::span<const std::string_view> parts) noexcept;

  /// Writes out what is buffered. Returns 0, or errno's number of the first failure since the file was begun. Throws
  /// driver_unavailable in a forked child of the process that opened it.
  int flush();

 private:
  struct writer;
  struct open_files;
  static open_files& all();

  writer* writer_;
};

/// `name` with the number of the process in place of each "%p".
std::string with_process_number(std::string name);

}  // namespace cenote::inline v1
