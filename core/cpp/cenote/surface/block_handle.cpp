#include "cenote/surface/block_handle.hpp"

#include <charconv>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace cenote::inline v1 {
namespace {

constexpr std::string_view handle_beginning = "cenote-block";
constexpr std::string_view handle_version = "1";

std::vector<std::string_view> handle_parts(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(':');
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <class Number>
bool read_part(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::string spell(const block_handle& handle) {
  std::string text(handle_beginning);
  for (const std::string& part : {std::string(handle_version), handle.endpoint, std::to_string(handle.owner),
                                  std::to_string(handle.request.number), std::to_string(handle.request.key),
                                  handle.device, std::to_string(handle.bytes)}) {
    text += ':' + part;
  }
  return text;
}

block_handle parse_block_handle(const std::string& text) {
  const std::vector<std::string_view> parts = handle_parts(text);
  if (parts[0] != handle_beginning) throw std::invalid_argument("this is no handle of a shared block");
  if (parts.size() < 2 || parts[1] != handle_version) {
    throw std::invalid_argument("this handle of a shared block is of another version of cenote");
  }
  block_handle handle{};
  if (parts.size() != 8 || parts[2].empty() || !read_part(parts[3], handle.owner) || handle.owner <= 0 ||
      !read_part(parts[4], handle.request.number) || !read_part(parts[5], handle.request.key) || parts[6].empty() ||
      !read_part(parts[7], handle.bytes) || handle.bytes == 0) {
    throw std::invalid_argument("this handle of a shared block is cut off or changed");
  }
  handle.endpoint = parts[2];
  handle.device = parts[6];
  return handle;
}

}  // namespace cenote::inline v1
