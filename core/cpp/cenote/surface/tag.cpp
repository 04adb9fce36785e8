#include "cenote/surface/tag.hpp"

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process_counters.hpp"

namespace cenote::inline v1 {
namespace {

constexpr const char* all_others = "(other tags)";

struct tag_table {
  process_mutex mutex;  // guards all below
  std::unordered_map<std::string, tag_index> numbers;
  std::vector<std::string> names{""};
};

tag_table& tags() noexcept {
  static immortal<tag_table> the_one;
  return *the_one;
}

[[maybe_unused]] const tag_table& tags_made_while_there_is_one_thread = tags();

[[gnu::tls_model("initial-exec")]] constinit thread_local tag_index of_this_thread = 0;
constinit std::atomic<tag_index (*)() noexcept> tag_finder{nullptr};

/// The number of a name, with the name if that was entered now.
std::pair<tag_index, std::string> enter(const std::string& name) {
  tag_table& table = tags();
  const std::lock_guard lock(table.mutex);
  const bool is_full = table.names.size() >= recorder::most_tags - 1;
  if (const auto known = table.numbers.find(name); known != table.numbers.end()) return {known->second, {}};
  const std::string& entered = is_full ? all_others : name;
  if (const auto known = table.numbers.find(entered); known != table.numbers.end()) return {known->second, {}};
  const auto fresh = static_cast<tag_index>(table.names.size());
  table.names.push_back(entered);
  try {
    table.numbers.emplace(entered, fresh);
  } catch (...) {
    table.names.pop_back();
    throw;
  }
  return {fresh, entered};
}

}  // namespace

tag_index register_tag(const std::string& name) {
  if (name.empty()) return 0;
  const auto [tag, entered] = enter(name);
  if (!entered.empty()) {
    recorder::name(recorder::names::tags, tag, entered);
    name_counters(recorder::names::tags, tag, entered);
  }
  return tag;
}

std::string name_of_tag(tag_index tag) {
  tag_table& table = tags();
  const std::lock_guard lock(table.mutex);
  return tag < table.names.size() ? table.names[tag] : std::string();
}

CENOTE_HOT tag_index current_tag() noexcept {
  if (const auto find = tag_finder.load(std::memory_order_relaxed)) {
    if (const tag_index found = find()) return found;
  }
  return of_this_thread;
}

tag_index exchange_current_tag(tag_index tag) noexcept {
  const tag_index before = of_this_thread;
  of_this_thread = tag;
  return before;
}

void find_tag_by(tag_index (*find)() noexcept) noexcept { tag_finder.store(find, std::memory_order_relaxed); }

}  // namespace cenote::inline v1
