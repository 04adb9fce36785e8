#include "cenote/ground/pressure.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cenote/ground/foreign_exception.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

struct entry {
  pressure_handler_id id;
  std::string name;
  pressure_handler call;
  int priority;
  std::atomic<std::uint64_t> calls{0}, skipped{0}, failures{0}, successes{0}, freed_bytes{0};
};

using entries = std::vector<std::shared_ptr<entry>>;

struct handler_table {
  process_mutex mutex;  // guards all below
  entries in_order;
  pressure_handler_id next = 1;
};

handler_table& handlers() noexcept {
  static immortal<handler_table> the_one;
  return *the_one;
}

[[maybe_unused]] const handler_table& handlers_made_while_there_is_one_thread = handlers();

entries all_handlers() {
  handler_table& table = handlers();
  const std::lock_guard lock(table.mutex);
  return table.in_order;
}

constinit thread_local bool is_relieving = false;

/// While it lives, allocations of this thread call no handler.
struct relieving_scope {
  relieving_scope() noexcept { is_relieving = true; }
  ~relieving_scope() { is_relieving = false; }
  relieving_scope(const relieving_scope&) = delete;
  relieving_scope& operator=(const relieving_scope&) = delete;
};

relief_step call(entry& handler, std::size_t bytes, int device) {
  const relieving_scope relieving;
  ++handler.calls;
  try {
    relief done = handler.call(bytes, device);
    handler.freed_bytes += done.freed_bytes.value_or(0);
    handler.skipped += done.why_not.empty() ? 0 : 1;
    return {handler.name, done.freed_bytes, std::move(done.why_not)};
  } catch (const std::exception& error) {
    ++handler.failures;
    if (const auto* const foreign = dynamic_cast<const foreign_exception*>(&error)) foreign->raise_later();
    return {handler.name, {}, std::string("failed: ") + error.what()};
  } catch (...) {
    ++handler.failures;
    return {handler.name, {}, "failed"};
  }
}

}  // namespace

pressure_handler_id add_pressure_handler(std::string name, pressure_handler handler, int priority) {
  if (!handler) throw std::invalid_argument("a pressure handler must be a function, not an empty one");
  auto made = std::make_shared<entry>();
  made->name = std::move(name);
  made->call = std::move(handler);
  made->priority = priority;
  handler_table& table = handlers();
  const std::lock_guard lock(table.mutex);
  made->id = table.next;
  const auto after = std::find_if(table.in_order.begin(), table.in_order.end(),
                                  [&](const auto& each) { return each->priority < priority; });
  table.in_order.insert(after, made);
  return table.next++;
}

bool remove_pressure_handler(pressure_handler_id handler) noexcept {
  std::shared_ptr<entry> removed;  // which ends after the lock
  handler_table& table = handlers();
  const std::lock_guard lock(table.mutex);
  const auto found =
      std::find_if(table.in_order.begin(), table.in_order.end(), [&](const auto& each) { return each->id == handler; });
  if (found == table.in_order.end()) return false;
  removed = std::move(*found);
  table.in_order.erase(found);
  return true;
}

std::vector<pressure_handler_figures> pressure_handlers() {
  std::vector<pressure_handler_figures> all;
  for (const auto& each : all_handlers()) {
    all.push_back({each->id, each->name, each->priority, each->calls, each->skipped, each->failures, each->successes,
                   each->freed_bytes});
  }
  return all;
}

std::vector<relief_step> relieve_pressure(std::size_t bytes, int device, const std::function<bool()>& retry) {
  std::vector<relief_step> steps;
  const entries all = all_handlers();
  if (all.empty()) return steps;
  if (is_relieving) return {{"pressure handlers", {}, "skipped: a pressure handler allocates this"}};
  for (const auto& each : all) {
    steps.push_back(call(*each, bytes, device));
    if (steps.back().freed_bytes == std::size_t{0}) continue;
    if (retry()) {
      ++each->successes;
      break;
    }
  }
  return steps;
}

}  // namespace cenote::inline v1
