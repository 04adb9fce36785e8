#include "cenote/ground/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>

#include "cenote/ground/bytes.hpp"

namespace cenote::inline v1 {
namespace {

/// The number behind `label` at the beginning of a line; nothing where there is none.
std::optional<std::size_t> number_in(const std::string& path, std::string_view label = {}) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(label)) continue;
    std::istringstream rest(line.substr(label.size()));
    if (std::size_t number = 0; rest >> number) return number;
    return std::nullopt;  // "max"
  }
  return std::nullopt;
}

std::size_t least(std::optional<std::size_t> one, std::size_t other) { return one ? std::min(*one, other) : other; }

/// The names of the files of a control group, which differ by version.
struct controller {
  const char* folder;
  const char* limit;
  const char* usage;
  const char* idle_files;  // a line of memory.stat: what the group has used to read files, and can do without
};
constexpr controller version_1 = {"/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                  "total_inactive_file "};
constexpr controller version_2 = {"/sys/fs/cgroup", "/memory.max", "/memory.current", "inactive_file "};

/// What a group and those around it leave of their limits.
std::optional<std::size_t> left_by_groups(const std::string& root, const controller& names, std::string group) {
  std::optional<std::size_t> left;
  for (;;) {
    const std::string folder = root + names.folder + group;
    const auto limit = number_in(folder + names.limit);
    const auto usage = number_in(folder + names.usage);
    if (limit && usage) {
      const std::size_t idle = number_in(folder + "/memory.stat", names.idle_files).value_or(0);
      left = least(left, *limit - std::min(*limit, *usage - std::min(*usage, idle)));
    }
    if (group.empty()) return left;
    group.erase(group.rfind('/'));
  }
}

/// The group of a line such as "0::/user.slice/a" or "7:cpu,memory:/a"; "" for the outermost one.
std::string group_of(const std::string& line, std::size_t second_colon) {
  std::string group = line.substr(second_colon + 1);
  if (group.empty() || group.front() != '/' || group == "/") return {};
  return group;
}

}  // namespace

std::optional<std::size_t> available_host_memory(const std::string& root) {
  std::optional<std::size_t> left = number_in(root + "/proc/meminfo", "MemAvailable:");
  if (left) left = *left * KiB;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_first_version = controllers.find(",memory,") != std::string::npos;
    if (!is_first_version && controllers != ",,") continue;
    const auto its = left_by_groups(root, is_first_version ? version_1 : version_2, group_of(line, second));
    if (its) left = least(left, *its);
  }
  return left;
}

}  // namespace cenote::inline v1
