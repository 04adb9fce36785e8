#include "cenote/ground/environment.hpp"

#include <sys/auxv.h>

#include <cstdlib>

namespace cenote::inline v1 {

const char* environment_text(const char* name) noexcept { return is_secure_execution() ? nullptr : std::getenv(name); }

const char* environment_variable(const char* name) noexcept {
  const char* const value = environment_text(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

bool is_secure_execution() noexcept { return getauxval(AT_SECURE) != 0; }

}  // namespace cenote::inline v1
