#include "cenote/ground/reports.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

struct kept_text {
  std::array<char, max_kept_report_bytes> characters;
  std::size_t size;
};

process_mutex guard;  // of all that follows
constinit std::uint64_t count = 0;
constinit std::array<kept_text, max_kept_reports> texts{};

void keep(kept_text& kept, std::initializer_list<text_part> parts) noexcept {
  kept.size = 0;
  for (const text_part& part : parts) {
    const std::string_view text = part.text().substr(0, kept.characters.size() - kept.size);
    std::memcpy(kept.characters.data() + kept.size, text.data(), text.size());
    kept.size += text.size();
  }
}

}  // namespace

void note_report(std::initializer_list<text_part> parts) noexcept {
  const std::lock_guard lock(guard);
  if (count < texts.size()) keep(texts[count], parts);
  ++count;
}

std::uint64_t report_count() noexcept {
  const std::lock_guard lock(guard);
  return count;
}

std::vector<std::string> kept_reports() {
  const std::lock_guard lock(guard);
  std::vector<std::string> kept;
  for (std::size_t i = 0; i < std::min<std::uint64_t>(count, texts.size()); ++i) {
    kept.emplace_back(texts[i].characters.data(), texts[i].size);
  }
  return kept;
}

void clear_reports() noexcept {
  const std::lock_guard lock(guard);
  count = 0;
}

}  // namespace cenote::inline v1
