#include "cenote/surface/client.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>

#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/spin_lock.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t max_clients = recorder::most_clients;
constexpr std::size_t cache_line = 64;

class alignas(cache_line) client_counters {
 public:
  void allocated(std::size_t bytes) noexcept {
    const std::lock_guard lock(lock_);
    bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, bytes_);
    ++allocations_;
    ++total_allocations_;
  }

  void freed(std::size_t bytes) noexcept {
    const std::lock_guard lock(lock_);
    bytes_ -= bytes;
    --allocations_;
  }

  void read(client_usage& into) noexcept {
    const std::lock_guard lock(lock_);
    into.bytes = bytes_;
    into.peak_bytes = peak_bytes_;
    into.allocations = allocations_;
    into.total_allocations = total_allocations_;
  }

 private:
  spin_lock lock_;  // guards all below
  std::uint64_t bytes_ = 0;
  std::uint64_t peak_bytes_ = 0;
  std::uint64_t allocations_ = 0;
  std::uint64_t total_allocations_ = 0;
};

constinit std::array<client_counters, recorder::most_tags> tag_counters;

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
  client_index fresh = 0;
  {
    const std::lock_guard lock(table.mutex);
    for (std::size_t i = 0; i < table.names.size(); ++i) {
      if (table.names[i] == name) return static_cast<client_index>(i);
    }
    if (table.names.size() == max_clients) throw std::length_error("there are too many clients of cenote");
    table.names.push_back(name);
    fresh = static_cast<client_index>(table.names.size() - 1);
    table.registered.store(fresh + 1, std::memory_order_release);
  }
  recorder::name(recorder::names::clients, static_cast<std::size_t>(fresh), name);
  return fresh;
}

void check_client(client_index client) {
  if (client >= 0 && client < clients().registered.load(std::memory_order_acquire)) return;
  throw std::out_of_range("there is no client " + std::to_string(client) + ": register_client gives out the numbers");
}

void client_allocated(client_index client, std::size_t bytes, tag_index tag) noexcept {
  counters_of(client).allocated(bytes);
  if (tag != 0) tag_counters[tag].allocated(bytes);
}

void client_freed(client_index client, std::size_t bytes, tag_index tag) noexcept {
  counters_of(client).freed(bytes);
  if (tag != 0) tag_counters[tag].freed(bytes);
}

std::vector<client_usage> usage() {
  client_table& table = clients();
  const std::lock_guard lock(table.mutex);
  std::vector<client_usage> all;
  for (std::size_t i = 0; i < table.names.size(); ++i) {
    all.push_back({table.names[i], 0, 0, 0, 0});
    table.counters[i].read(all.back());
  }
  return all;
}

std::vector<client_usage> usage_by_tag() {
  std::vector<client_usage> all;
  for (tag_index tag = 1; tag < recorder::most_tags; ++tag) {
    const std::string name = name_of_tag(tag);
    if (name.empty()) break;
    all.push_back({name, 0, 0, 0, 0});
    tag_counters[tag].read(all.back());
  }
  return all;
}

}  // namespace cenote::inline v1
