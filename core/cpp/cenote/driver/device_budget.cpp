#include "cenote/driver/device_budget.hpp"

#include <array>
#include <atomic>
#include <charconv>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver_pools.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

constexpr const char* variable = "CENOTE_BUDGET";
constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
constexpr std::size_t not_known_yet = no_limit - 1;

struct account {
  std::atomic<std::size_t> counted{0};
  std::atomic<std::size_t> limit{not_known_yet};
};
constinit std::array<account, max_devices> accounts;

account& account_of(int device) { return accounts.at(static_cast<std::size_t>(device)); }

struct amounts {
  process_mutex mutex;  // guards all below, and that limits which are known agree with it
  std::optional<std::string> of_all;
  std::array<std::optional<std::string>, max_devices> of_one;
};

amounts& chosen() {
  static immortal<amounts> all;
  return *all;
}

struct amount {
  std::string text;
  std::string set_by;
  bool operator==(const amount&) const = default;
};

/// The caller holds `mutex`.
amount amount_for(int device) {
  const amounts& known = chosen();
  if (const auto& own = known.of_one[static_cast<std::size_t>(device)]) return {*own, "cenote.budget"};
  if (known.of_all) return {*known.of_all, "cenote.budget"};
  const char* const specified = environment_variable(variable);
  return specified != nullptr ? amount{specified, variable} : amount{};
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

std::size_t limit_of(int device) {
  account& own = account_of(device);
  for (;;) {
    if (const std::size_t known = own.limit.load(std::memory_order_acquire); known != not_known_yet) return known;
    std::unique_lock lock(chosen().mutex);
    const amount wanted = amount_for(device);
    lock.unlock();
    std::size_t bytes = no_limit;
    try {
      bytes = bytes_in(wanted.text, [&] { return device_memory_info(device).total_bytes; });
    } catch (const std::invalid_argument& error) {  // what was set was looked at when it was
      throw std::invalid_argument(std::string("in the environment variable ") + variable + ": " + error.what());
    }
    lock.lock();
    if (wanted == amount_for(device)) own.limit.store(bytes, std::memory_order_release);
  }
}

std::size_t held_on(int device) {
  return account_of(device).counted.load(std::memory_order_relaxed) + driver_pools::of(device).reserved_bytes();
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

budget_figures budget_of(int device) {
  check_device(device);
  const std::size_t limit = limit_of(device);
  if (limit == no_limit) return {{}, held_on(device), {}};
  const std::lock_guard lock(chosen().mutex);
  return {limit, held_on(device), amount_for(device).set_by};
}

bool take_from_budget(int device, std::size_t bytes) {
  const std::size_t limit = limit_of(device);
  account& own = account_of(device);
  const std::size_t before = own.counted.fetch_add(bytes, std::memory_order_relaxed);
  if (limit == no_limit) return true;
  const std::size_t others = before + driver_pools::of(device).reserved_bytes();
  if (bytes <= limit && others <= limit - bytes) return true;
  give_back_to_budget(device, bytes);
  return false;
}

void give_back_to_budget(int device, std::size_t bytes) noexcept {
  accounts[static_cast<std::size_t>(device)].counted.fetch_sub(bytes, std::memory_order_relaxed);
}

bool has_room_in_budget(int device, CUmemPoolHandle_st* pool, std::size_t bytes) {
  const std::size_t limit = limit_of(device);
  if (limit == no_limit) return true;
  const std::optional<std::size_t> unused = driver_pools::of(device).unused_bytes_of(pool);
  if (!unused || *unused >= bytes) return true;  // somebody else's pool, or one that has it
  const std::size_t held = held_on(device);
  return bytes <= limit && held <= limit - bytes;
}

}  // namespace cenote::inline v1
