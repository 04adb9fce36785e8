// One part of a text that is put together without the host's memory: characters that lie elsewhere, or a number or an
// address, which the part spells in itself.
//
// For reports, which have to be possible when the host's memory has run out.
//
// Threads: a value.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cenote::inline v1 {

class text_part {
 public:
  text_part(std::string_view text) noexcept : characters_(text.data()), size_(text.size()) {}
  text_part(const std::string& text) noexcept : text_part(std::string_view(text)) {}
  text_part(const char* text) noexcept : text_part(std::string_view(text)) {}
  text_part(std::integral auto number) noexcept { spell(number, 10); }

  /// As format_address spells it.
  text_part(const void* address) noexcept {
    spelled_ = {'0', 'x'};
    size_ = 2;
    spell(reinterpret_cast<std::uintptr_t>(address), 16);
  }

  /// Valid as long as the part and the characters are.
  std::string_view text() const noexcept { return {characters_ != nullptr ? characters_ : spelled_.data(), size_}; }

 private:
  void spell(std::integral auto number, int base) noexcept {
    const auto end = std::to_chars(spelled_.data() + size_, spelled_.data() + spelled_.size(), number, base).ptr;
    size_ = static_cast<std::size_t>(end - spelled_.data());
  }

  const char* characters_ = nullptr;  // null: they are in `spelled_`
  std::array<char, 24> spelled_{};    // "-9223372036854775808" is the longest
  std::size_t size_ = 0;
};

}  // namespace cenote::inline v1
