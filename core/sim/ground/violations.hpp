// The log of what the program under test did wrong, one line each: a dead handle used, an unknown pointer freed, an
// illegal call in a capture, memory touched after it was freed in stream order. The real driver answers such calls with
// an error at best, with wrong bytes or a crash at worst; here they are written down as well.
//
// Threads: guarded by driver_mutex(). The log keeps the first `capacity` lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cenote::sim {

class violation_log {
 public:
  static constexpr std::size_t capacity = 10'000;

  /// Writes "<current call>: <what>".
  void add(const std::string& what);
  void clear();

  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

violation_log& violations();

/// "0x7f00…", for messages.
std::string hex(std::uintptr_t value);

}  // namespace cenote::sim
