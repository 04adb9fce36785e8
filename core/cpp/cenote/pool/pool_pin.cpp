#include "cenote/pool/pool_pin.hpp"

#include <stdexcept>
#include <string>

namespace cenote::inline v1 {

pin_kind parse_pin_kind(std::string_view name) {
  std::string names;
  for (const pin_kind each : {pin_kind::captured, pin_kind::exported, pin_kind::registered, pin_kind::lent}) {
    if (name == spell_pin_kind(each)) return each;
    names += std::string(names.empty() ? "" : ", ") + spell_pin_kind(each);
  }
  throw std::invalid_argument("a pin's kind must be one of " + names + ", not '" + std::string(name) + "'");
}

}  // namespace cenote::inline v1
