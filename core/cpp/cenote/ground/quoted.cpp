#include "cenote/ground/quoted.hpp"

#include <stdexcept>

namespace cenote::inline v1 {
namespace {

constexpr char quote = '"';
constexpr std::string_view blanks = " \t\n";

}  // namespace

std::string_view without_blanks(std::string_view text) {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::string quoted(std::string_view text, std::string_view separators) {
  const bool is_plain = text.find_first_of(separators) == text.npos && text.find(quote) == text.npos &&
                        without_blanks(text).size() == text.size();
  if (is_plain) return std::string(text);
  std::string inside;
  for (const char c : text) inside.append(c == quote ? 2 : 1, c);
  return quote + inside + quote;
}

std::string unquoted(std::string_view text) {
  if (text.find(quote) == text.npos) return std::string(text);
  const std::string wrong =
      std::string(text) + ": a quote stands at the beginning and at the end, and \"\" for one between";
  if (text.size() < 2 || text.front() != quote || text.back() != quote) throw std::invalid_argument(wrong);
  const std::string_view inside = text.substr(1, text.size() - 2);
  std::string plain;
  for (std::size_t i = 0; i < inside.size(); ++i) {
    if (inside[i] == quote && (++i == inside.size() || inside[i] != quote)) throw std::invalid_argument(wrong);
    plain += inside[i];
  }
  return plain;
}

std::vector<std::string_view> split_unquoted(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  bool is_inside = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == quote) is_inside = !is_inside;
    if (text[i] != separator || is_inside) continue;
    parts.push_back(without_blanks(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  parts.push_back(without_blanks(text.substr(begin)));
  return parts;
}

}  // namespace cenote::inline v1
