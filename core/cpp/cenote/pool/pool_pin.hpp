// A pin keeps memory of a pool where it is, because somebody beside the pool knows it by its address or its page.
#pragma once

#include <cstddef>
#include <string_view>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// Says by whom the memory is known. Nobody may exchange pinned pages, but for `captured` ones those that know the
/// graph.
enum class pin_kind {
  captured,    ///< a graph that uses it
  exported,    ///< another process, which has mapped it
  registered,  ///< a device that reads and writes it by itself, such as a network card
  lent,        ///< another device or pool, which uses it meanwhile
};

/// The kind's own name.
constexpr const char* spell_pin_kind(pin_kind kind) noexcept {
  switch (kind) {
    case pin_kind::captured:
      return "captured";
    case pin_kind::exported:
      return "exported";
    case pin_kind::registered:
      return "registered";
    case pin_kind::lent:
      return "lent";
  }
  return "unknown";
}

/// The kind of that name; std::invalid_argument, with the names there are, for another.
CENOTE_EXPORT pin_kind parse_pin_kind(std::string_view name);

/// A block that was in use when it was pinned, and how many pins of that kind it has. It may have been freed since.
struct pool_pin {
  const std::byte* address;
  std::size_t bytes;
  pin_kind kind;
  std::size_t count;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
