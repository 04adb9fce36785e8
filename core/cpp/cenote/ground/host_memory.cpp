#include "cenote/ground/host_memory.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {
namespace {

/// Reads a small file; empty where it cannot be read.
std::string text_of(const std::string& path) {
  const file_descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> part;
  while (file) {
    const ssize_t got = read(file.value(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  return text;
}

/// Calls use(line) for each line.
template <class Use>
void for_each_line(std::string_view text, Use&& use) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    use(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

/// Returns the number behind `label` at the beginning of a line; nothing where there is none.
std::optional<std::size_t> number_in(const std::string& path, std::string_view label = {}) {
  std::optional<std::size_t> found;
  for_each_line(text_of(path), [&](std::string_view line) {
    if (found || !line.starts_with(label)) return;
    const std::size_t begin = std::min(line.find_first_not_of(' ', label.size()), line.size());
    std::size_t number = 0;
    const auto parsed = std::from_chars(line.data() + begin, line.data() + line.size(), number);
    if (parsed.ec == std::errc()) found = number;  // else it is "max"
  });
  return found;
}

std::size_t least(std::optional<std::size_t> one, std::size_t other) { return one ? std::min(*one, other) : other; }

/// The names of the files of a control group, which differ by version.
struct controller {
  const char* folder;
  const char* limit;
  const char* usage;
  std::array<const char*, 2> files;  // lines of memory.stat: copies of files, which the system can drop
};
constexpr controller version_1 = {"/sys/fs/cgroup/memory",
                                  "/memory.limit_in_bytes",
                                  "/memory.usage_in_bytes",
                                  {"total_inactive_file ", "total_active_file "}};
constexpr controller version_2 = {
    "/sys/fs/cgroup", "/memory.max", "/memory.current", {"inactive_file ", "active_file "}};

/// Returns what a group and those around it leave of their limits.
std::optional<std::size_t> left_by_groups(const std::string& root, const controller& names, std::string group) {
  std::optional<std::size_t> left;
  for (;;) {
    const std::string folder = root + names.folder + group;
    const auto limit = number_in(folder + names.limit);
    const auto usage = number_in(folder + names.usage);
    if (limit && usage) {
      std::size_t dropped = 0;
      for (const char* label : names.files) dropped += number_in(folder + "/memory.stat", label).value_or(0);
      left = least(left, *limit - std::min(*limit, *usage - std::min(*usage, dropped)));
    }
    if (group.empty()) return left;
    group.erase(group.rfind('/'));
  }
}

/// Returns what is left by the group of a line such as "0::/user.slice/a" or "7:cpu,memory:/a"; nothing where it is not
/// one of memory.
std::optional<std::size_t> left_by_line(const std::string& root, std::string_view line) {
  const std::size_t first = line.find(':');
  const std::size_t second = first == line.npos ? first : line.find(':', first + 1);
  if (second == line.npos) return std::nullopt;
  const std::string controllers = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
  const bool is_first_version = controllers.find(",memory,") != std::string::npos;
  if (!is_first_version && controllers != ",,") return std::nullopt;
  std::string group(line.substr(second + 1));
  if (!group.starts_with('/') || group == "/") group.clear();  // the outermost one
  return left_by_groups(root, is_first_version ? version_1 : version_2, std::move(group));
}

}  // namespace

std::optional<std::size_t> available_host_memory(const std::string& root) {
  std::optional<std::size_t> left = number_in(root + "/proc/meminfo", "MemAvailable:");
  if (left) left = *left * KiB;
  for_each_line(text_of(root + "/proc/self/cgroup"), [&](std::string_view line) {
    if (const auto its = left_by_line(root, line)) left = least(left, *its);
  });
  return left;
}

}  // namespace cenote::inline v1
