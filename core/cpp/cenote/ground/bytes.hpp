// Byte arithmetic: sizes that never wrap, alignment, and sizes as text.
//
// Sizes are std::size_t, in bytes. Rounding saturates: a size near 2^64 stays near 2^64 and is refused as out of memory
// later; it never becomes a small number.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

constexpr std::size_t KiB = std::size_t{1} << 10;
constexpr std::size_t MiB = std::size_t{1} << 20;
constexpr std::size_t GiB = std::size_t{1} << 30;

/// The alignment that every resource gives without being asked, as the CUDA driver does.
constexpr std::size_t default_alignment = 256;

/// No resource hands out more: the address space of today's GPUs is 2^49 bytes, pointer differences are signed.
constexpr std::size_t max_allocation = std::numeric_limits<std::ptrdiff_t>::max();

constexpr bool is_power_of_two(std::size_t n) { return n != 0 && (n & (n - 1)) == 0; }

/// The largest multiple of `alignment` that is not above `n`. `alignment` must be a power of two.
constexpr std::size_t align_down(std::size_t n, std::size_t alignment) { return n & ~(alignment - 1); }

/// The smallest multiple of `alignment` that is not below `n`; the largest one there is when that would pass 2^64.
constexpr std::size_t align_up(std::size_t n, std::size_t alignment) {
  return n > std::numeric_limits<std::size_t>::max() - (alignment - 1)
             ? align_down(std::numeric_limits<std::size_t>::max(), alignment)
             : align_down(n + alignment - 1, alignment);
}

/// "1.50 GiB": for people. The exact number of bytes below 1 KiB.
CENOTE_EXPORT std::string format_bytes(std::size_t bytes);

/// "0x7f3cb7600000"; "0x0" for null.
CENOTE_EXPORT std::string format_address(const void* address);

/// "1GiB", "512 kb", "1.5MiB", "1000": for machines to read back exactly where it is a whole multiple of a unit.
CENOTE_EXPORT std::string spell_bytes(std::size_t bytes);

/// Bytes in a text such as "1GiB", "2.5 mb", "4096" (KB = 1000, KiB = 1024, case ignored); nothing if it is none or
/// passes 2^64. A number without a unit is in bytes.
CENOTE_EXPORT std::optional<std::size_t> parse_bytes(std::string_view text);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
