#include "cenote/surface/client.hpp"

#include <atomic>
#include <stdexcept>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process_counters.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t max_clients = recorder::most_clients;
static_assert(max_devices <= most_counted_devices);

struct client_table {
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

CENOTE_HOT client_counters& counters_of(client_index client) noexcept {
  return process_counters::get().clients[static_cast<std::size_t>(client)];
}

[[noreturn]] CENOTE_COLD void refuse_client(client_index client) {
  throw std::out_of_range("there is no client " + std::to_string(client) + ": register_client gives out the numbers");
}

client_usage usage_of(std::string name, block_figures figures) {
  return {std::move(name), figures.bytes, figures.peak_bytes, figures.blocks, figures.allocations};
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
  name_counters(recorder::names::clients, static_cast<std::size_t>(fresh), name);
  return fresh;
}

CENOTE_HOT void check_client(client_index client) {
  if (client < 0 || client >= clients().registered.load(std::memory_order_acquire)) refuse_client(client);
}

CENOTE_HOT void client_allocated(client_index client, int device, std::size_t bytes, tag_index tag) noexcept {
  counters_of(client).allocated(bytes, static_cast<std::size_t>(device));
  if (tag != 0) process_counters::get().tags[tag].allocated(bytes);
}

CENOTE_HOT void client_freed(client_index client, int device, std::size_t bytes, tag_index tag) noexcept {
  counters_of(client).freed(bytes, static_cast<std::size_t>(device));
  if (tag != 0) process_counters::get().tags[tag].freed(bytes);
}

std::vector<client_usage> usage() {
  client_table& table = clients();
  const std::lock_guard lock(table.mutex);
  std::vector<client_usage> all;
  for (std::size_t i = 0; i < table.names.size(); ++i) {
    all.push_back(usage_of(table.names[i], counters_of(static_cast<client_index>(i)).read()));
  }
  return all;
}

std::vector<client_usage> usage_by_tag() {
  std::vector<client_usage> all;
  for (tag_index tag = 1; tag < recorder::most_tags; ++tag) {
    std::string name = name_of_tag(tag);
    if (name.empty()) break;
    all.push_back(usage_of(std::move(name), process_counters::get().tags[tag].read()));
  }
  return all;
}

}  // namespace cenote::inline v1
