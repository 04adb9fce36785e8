// Where a call came from: the frames of C++, and those of an interpreter that runs on the thread.
//
// Capturing keeps addresses only; they become names when text() is asked for. The innermost frames, which lie in this
// library, are left out; so are all from the first that lies in the interpreter's machine code: what the interpreter
// says of itself stands for them, and one line of a program is one stack however the interpreter got there.
//
// Threads: a stack is a value. capture() takes no lock of cenote; `describe` of the interpreter may take its own.
// Cost: some microseconds to capture 64 frames, and what the interpreter takes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A language whose programs call this library, as the program that embeds it describes it.
struct interpreter {
  std::string name;                       ///< "Python"
  std::function<std::string()> describe;  ///< the calling thread's frames, one a line, innermost last; empty if none
  const void* code = nullptr;             ///< any address in its machine code
};

class call_stack {
 public:
  static constexpr int max_frames = 64;

  /// The calling thread's stack. `running` may be empty (no `describe`).
  static call_stack capture(const interpreter& running);

  /// One line a frame, each indented and ended.
  std::string text() const;

  friend bool operator==(const call_stack&, const call_stack&) = default;
  friend auto operator<=>(const call_stack&, const call_stack&) = default;

 private:
  std::string language_;
  std::string described_;
  std::vector<const void*> frames_;  // return addresses, innermost first
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
