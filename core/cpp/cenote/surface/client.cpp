#include "cenote/surface/client.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/spin_lock.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t max_clients = 32;
constexpr std::size_t cache_line = 64;

struct alignas(cache_line) client_counters {
  spin_lock lock;  // guards all below
  std::uint64_t bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::uint64_t allocations = 0;
  std::uint64_t total_allocations = 0;
};

struct client_table {
  std::array<client_counters, max_clients> counters;
  process_mutex mutex;  // guards `names`
  std::vector<std::string> names;
  std::atomic<client_index> registered{0};  // how many names there are, for those who only check
};

client_table& clients() noexcept {
  static immortal<client_table> the_one;
  return *the_one;
}

[[maybe_unused]] const client_table& clients_made_while_there_is_one_thread =
    clients();  // none waits in a forked child for it to be made

client_counters& counters_of(client_index client) noexcept {
  return clients().counters[static_cast<std::size_t>(client)];
}

}  // namespace

client_index register_client(const std::string& name) {
  client_table& table = clients();
  const std::lock_guard lock(table.mutex);
  for (std::size_t i = 0; i < table.names.size(); ++i) {
    if (table.names[i] == name) return static_cast<client_index>(i);
  }
  if (table.names.size() == max_clients) throw std::length_error("there are too many clients of cenote");
  table.names.push_back(name);
  const auto fresh = static_cast<client_index>(table.names.size() - 1);
  table.registered.store(fresh + 1, std::memory_order_release);
  return fresh;
}

void check_client(client_index client) {
  if (client >= 0 && client < clients().registered.load(std::memory_order_acquire)) return;
  throw std::out_of_range("there is no client " + std::to_string(client) + ": register_client gives out the numbers");
}

void client_allocated(client_index client, std::size_t bytes) noexcept {
  client_counters& counters = counters_of(client);
  const std::lock_guard lock(counters.lock);
  counters.bytes += bytes;
  counters.peak_bytes = std::max(counters.peak_bytes, counters.bytes);
  ++counters.allocations;
  ++counters.total_allocations;
}

void client_freed(client_index client, std::size_t bytes) noexcept {
  client_counters& counters = counters_of(client);
  const std::lock_guard lock(counters.lock);
  counters.bytes -= bytes;
  --counters.allocations;
}

std::vector<client_usage> usage() {
  client_table& table = clients();
  const std::lock_guard lock(table.mutex);
  std::vector<client_usage> all;
  for (std::size_t i = 0; i < table.names.size(); ++i) {
    all.push_back({table.names[i], 0, 0, 0, 0});
    client_counters& counters = table.counters[i];
    const std::lock_guard together(counters.lock);
    all.back().bytes = counters.bytes;
    all.back().peak_bytes = counters.peak_bytes;
    all.back().allocations = counters.allocations;
    all.back().total_allocations = counters.total_allocations;
  }
  return all;
}

}  // namespace cenote::inline v1
