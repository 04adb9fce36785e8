#include "cenote/ground/bytes.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace cenote::inline v1 {
namespace {

struct unit {
  std::string_view name;  // lower case
  double bytes;
};

constexpr std::array<unit, 11> units{{{"b", 1.0},
                                      {"kb", 1e3},
                                      {"mb", 1e6},
                                      {"gb", 1e9},
                                      {"tb", 1e12},
                                      {"pb", 1e15},
                                      {"kib", 0x1p10},
                                      {"mib", 0x1p20},
                                      {"gib", 0x1p30},
                                      {"tib", 0x1p40},
                                      {"pib", 0x1p50}}};

constexpr std::array<const char*, 6> binary_suffixes{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t";
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace

std::string format_address(const void* address) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "0x%zx", reinterpret_cast<std::size_t>(address));
  return text.data();
}

std::string format_bytes(std::size_t bytes) {
  if (bytes < KiB) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes);
  std::size_t suffix = 0;
  while (value >= 1024.0 && suffix + 1 < binary_suffixes.size()) {
    value /= 1024.0;
    ++suffix;
  }
  std::array<char, 32> text{};  // by to_chars: printf writes the decimal comma of a locale
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 2).ptr;
  return std::string(text.data(), end) + " " + binary_suffixes[suffix];
}

std::string spell_bytes(std::size_t bytes) {
  std::size_t suffix = 0;
  while (bytes != 0 && bytes % 1024 == 0 && suffix + 1 < binary_suffixes.size()) {
    bytes /= 1024;
    ++suffix;
  }
  return std::to_string(bytes) + (suffix == 0 ? "" : binary_suffixes[suffix]);
}

std::optional<std::size_t> parse_bytes(std::string_view text) {
  text = trimmed(text);
  const auto number_end = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, number_end);
  const std::string_view suffix =
      number_end == std::string_view::npos ? std::string_view{} : trimmed(text.substr(number_end));
  if (number.empty() || number.front() == '.' || number.back() == '.') return std::nullopt;

  double scale = 1.0;
  if (!suffix.empty()) {
    const std::string wanted = lower(suffix);
    const unit* found = nullptr;
    for (const unit& u : units) {
      if (u.name == wanted) found = &u;
    }
    if (found == nullptr) return std::nullopt;
    scale = found->bytes;
  }

  // Whole numbers are kept exact; a fraction goes through double, as "1.5GiB" means no more than that.
  const char* const end = number.data() + number.size();
  if (number.find('.') == std::string_view::npos) {
    std::size_t whole = 0;
    const auto [stop, error] = std::from_chars(number.data(), end, whole);
    if (error != std::errc{} || stop != end) return std::nullopt;
    const auto factor = static_cast<std::size_t>(scale);
    if (whole != 0 && factor > std::numeric_limits<std::size_t>::max() / whole) return std::nullopt;
    return whole * factor;
  }
  double value = 0;
  const auto [stop, error] = std::from_chars(number.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  const double bytes = std::floor(value * scale);
  if (bytes >= 0x1p64) return std::nullopt;
  return static_cast<std::size_t>(bytes);
}

}  // namespace cenote::inline v1
