#include "sim/ground/violations.hpp"

#include <cstdio>

#include "sim/ground/current_call.hpp"

namespace cenote::sim {

void violation_log::add(const std::string& what) {
  if (lines_.size() < capacity) {
    lines_.push_back(std::string(current_call()) + ": " + what);
  }
}

void violation_log::clear() { lines_.clear(); }

violation_log& violations() {
  static violation_log* const log = new violation_log;
  return *log;
}

std::string hex(std::uintptr_t value) {
  char text[2 + 2 * sizeof value + 1];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace cenote::sim
