#include "cenote/driver/device_budget.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/driver/shared_account.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/pressure.hpp"

namespace cenote::inline v1 {
namespace {

constexpr const char* variable = "CENOTE_BUDGET";
constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
constexpr std::size_t not_known_yet = no_limit - 1;

struct account {
  std::atomic<std::size_t> counted{0};
  std::atomic<std::size_t> limit{not_known_yet};
  std::atomic<shared_account*> shared{nullptr};
};
constinit std::array<account, max_devices> accounts;

account& account_of(int device) { return accounts.at(static_cast<std::size_t>(device)); }

struct amounts {
  process_mutex mutex;  // guards all below, and that limits which are known agree with it
  std::optional<std::string> of_all;
  std::array<std::optional<std::string>, max_devices> of_one;
  std::array<std::map<std::string, std::string, std::less<>>, max_devices> of_others;  ///< by who has set them
};

amounts& chosen() {
  static immortal<amounts> all;
  return *all;
}

struct limit_text {
  std::string text;
  std::string set_by;
  bool operator==(const limit_text&) const = default;
};

/// All that bound the device. The caller holds `mutex`.
std::vector<limit_text> amounts_for(int device) {
  const amounts& known = chosen();
  const auto index = static_cast<std::size_t>(device);
  std::vector<limit_text> found;
  if (const auto& own = known.of_one[index]) {
    found.push_back({*own, "cenote.budget"});
  } else if (known.of_all) {
    found.push_back({*known.of_all, "cenote.budget"});
  } else if (const char* const specified = environment_variable(variable)) {
    found.push_back({specified, variable});
  }
  for (const auto& [set_by, text] : known.of_others[index]) found.push_back({text, set_by});
  return found;
}

std::optional<double> share_in(std::string_view text) {
  if (text.empty() || text.back() != '%') return std::nullopt;
  double percent = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size() - 1, percent);
  if (error != std::errc{} || end != text.data() + text.size() - 1 || !(percent >= 0 && percent <= 100)) {
    throw std::invalid_argument("'" + std::string(text) + "' is no share for a budget: it is from 0% to 100%");
  }
  return percent / 100;
}

/// Bytes; `total_bytes` is asked only for a share.
template <class Total>
std::size_t bytes_in(const std::string& text, Total&& total_bytes) {
  if (text.empty()) return no_limit;
  if (const auto share = share_in(text)) return static_cast<std::size_t>(*share * static_cast<double>(total_bytes()));
  const auto bytes = parse_bytes(text);
  if (!bytes) throw std::invalid_argument("'" + text + "' is no budget: it is bytes, such as '20GiB', or '60%'");
  return *bytes < not_known_yet ? *bytes : no_limit;
}

struct smallest_limit {
  std::size_t bytes = no_limit;
  std::string set_by{};
};

smallest_limit smallest_of(const std::vector<limit_text>& all, int device) {
  smallest_limit smallest;
  for (const auto& [text, set_by] : all) {
    std::size_t bytes = no_limit;
    try {
      bytes = bytes_in(text, [device] { return device_memory_info(device).total_bytes; });
    } catch (const std::invalid_argument& error) {  // what was set was looked at when it was
      throw std::invalid_argument(std::string("in the environment variable ") + variable + ": " + error.what());
    }
    if (bytes < smallest.bytes) smallest = {bytes, set_by};
  }
  return smallest;
}

std::size_t limit_of(int device) {
  account& own = account_of(device);
  for (;;) {
    if (const std::size_t known = own.limit.load(std::memory_order_acquire); known != not_known_yet) return known;
    std::unique_lock lock(chosen().mutex);
    const std::vector<limit_text> wanted = amounts_for(device);
    lock.unlock();
    const std::size_t bytes = smallest_of(wanted, device).bytes;
    lock.lock();
    if (wanted == amounts_for(device)) own.limit.store(bytes, std::memory_order_release);
  }
}

std::size_t held_on(int device) {
  return account_of(device).counted.load(std::memory_order_relaxed) + driver_pools::of(device).reserved_bytes();
}

/// What counts for the device's budget, of all processes that share it.
std::size_t held_together(int device) {
  const shared_account* const shared = account_of(device).shared.load(std::memory_order_acquire);
  return shared == nullptr ? held_on(device) : shared->total() + driver_pools::of(device).reserved_bytes();
}

/// The pressure handler: asks the other processes, and waits until there is room, for a second at the most.
relief ask_other_processes(std::size_t bytes, int device) {
  constexpr std::size_t page_bytes = 2 * MiB;
  constexpr auto longest = std::chrono::seconds(1);
  constexpr auto pause = std::chrono::milliseconds(5);
  shared_account* const shared = account_of(device).shared.load(std::memory_order_acquire);
  if (shared == nullptr) return relief(0);
  const std::size_t limit = limit_of(device);
  const std::size_t wanted = align_up(bytes, page_bytes);
  const auto is_room = [&] { return wanted <= limit && held_together(device) <= limit - wanted; };
  if (wanted > limit || is_room()) return relief(0);
  shared->ask();
  for (const auto end = std::chrono::steady_clock::now() + longest; std::chrono::steady_clock::now() < end;) {
    std::this_thread::sleep_for(pause);
    if (is_room()) return {};
  }
  return relief(0);
}

void check_amount(const std::string& text) {
  bytes_in(text, [] { return std::size_t{0}; });
}

}  // namespace

void set_budget(std::string_view amount) {
  std::string text(amount);
  check_amount(text);
  const std::lock_guard lock(chosen().mutex);
  chosen().of_all = std::move(text);
  for (account& each : accounts) each.limit.store(not_known_yet, std::memory_order_release);
}

void set_budget(int device, std::string_view amount) {
  std::string text(amount);
  check_amount(text);
  check_device(device);
  const std::lock_guard lock(chosen().mutex);
  auto& own = chosen().of_one[static_cast<std::size_t>(device)];
  if (text.empty()) {
    own.reset();
  } else {
    own = std::move(text);
  }
  account_of(device).limit.store(not_known_yet, std::memory_order_release);
}

void set_budget_by(std::string_view set_by, int device, std::string_view amount) {
  if (set_by.empty()) throw std::invalid_argument("whoever bounds a device must have a name");
  std::string text(amount);
  check_amount(text);
  check_device(device);
  const std::lock_guard lock(chosen().mutex);
  auto& others = chosen().of_others[static_cast<std::size_t>(device)];
  if (!text.empty()) {
    others.insert_or_assign(std::string(set_by), std::move(text));
  } else if (const auto found = others.find(set_by); found != others.end()) {
    others.erase(found);
  }
  account_of(device).limit.store(not_known_yet, std::memory_order_release);
}

void share_budget(int device, int file) {
  try {
    check_device(device);
  } catch (...) {
    if (file >= 0) close(file);
    throw;
  }
  account& own = account_of(device);
  shared_account* joined = nullptr;
  if (file >= 0) {
    joined = &shared_account::join(file);
    joined->add(own.counted.load(std::memory_order_relaxed));
    static const auto handler = add_pressure_handler("the other processes of the budget", ask_other_processes);
    static_cast<void>(handler);
  }
  if (shared_account* const left = own.shared.exchange(joined, std::memory_order_acq_rel)) left->leave();
}

std::uint32_t requests_of_budget(int device) {
  check_device(device);
  const shared_account* const shared = account_of(device).shared.load(std::memory_order_acquire);
  return shared == nullptr ? 0 : shared->asked();
}

budget_figures budget_of(int device) {
  check_device(device);
  const std::size_t limit = limit_of(device);
  if (limit == no_limit) return {{}, held_on(device), held_together(device), {}};
  std::unique_lock lock(chosen().mutex);
  const std::vector<limit_text> all = amounts_for(device);
  lock.unlock();
  return {limit, held_on(device), held_together(device), smallest_of(all, device).set_by};
}

bool has_budget(int device) { return limit_of(device) != no_limit; }

std::size_t free_within_budget(int device) {
  const std::size_t free = device_memory_info(device).free_bytes;
  const std::size_t limit = limit_of(device);
  return limit == no_limit ? free : std::min(free, limit - std::min(limit, held_together(device)));
}

bool take_from_budget(int device, std::size_t bytes) {
  const std::size_t limit = limit_of(device);
  account& own = account_of(device);
  own.counted.fetch_add(bytes, std::memory_order_relaxed);
  if (shared_account* const shared = own.shared.load(std::memory_order_acquire)) shared->add(bytes);
  if (limit == no_limit || (bytes <= limit && held_together(device) <= limit)) return true;
  give_back_to_budget(device, bytes);
  return false;
}

void give_back_to_budget(int device, std::size_t bytes) noexcept {
  account& own = accounts[static_cast<std::size_t>(device)];
  // Where the driver could not say how large a block was (budgeted_free), no more goes back than was taken.
  std::size_t counted = own.counted.load(std::memory_order_relaxed);
  while (!own.counted.compare_exchange_weak(counted, counted - std::min(counted, bytes), std::memory_order_relaxed)) {
  }
  if (shared_account* const shared = own.shared.load(std::memory_order_acquire)) {
    shared->subtract(std::min(counted, bytes));
  }
}

bool has_room_in_budget(int device, CUmemPoolHandle_st* pool, std::size_t bytes) {
  const std::size_t limit = limit_of(device);
  if (limit == no_limit) return true;
  const std::optional<std::size_t> unused = driver_pools::of(device).unused_bytes_of(pool);
  if (!unused || *unused >= bytes) return true;  // somebody else's pool, or one that has it
  const std::size_t held = held_together(device);
  return bytes <= limit && held <= limit - bytes;
}

}  // namespace cenote::inline v1
