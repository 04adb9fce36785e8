#include "cenote/surface/call_site.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

using call_sites::blocks_sampled, call_sites::sampled_every;

constinit std::atomic<site_describer> describer{nullptr};

constinit thread_local std::size_t allocations_since_sample = 0;
constinit thread_local bool is_describing = false;  // what describes a site may allocate

struct site_table {
  process_mutex mutex;  // guards all below
  using numbered = std::unordered_map<std::string, std::size_t>;
  numbered numbers;                                                       // of sites
  std::unordered_map<const void*, const numbered::value_type*> of_block;  // what is in `numbers` stays where it is
};

site_table& sites() noexcept {
  static immortal<site_table> the_one;
  return *the_one;
}

[[maybe_unused]] const site_table& sites_made_while_there_is_one_thread = sites();

void enter(const void* pointer, const std::string& site) {
  site_table& table = sites();
  const std::lock_guard lock(table.mutex);
  const auto known = table.numbers.try_emplace(site, table.numbers.size()).first;
  table.of_block[pointer] = &*known;
  blocks_sampled.store(table.of_block.size(), std::memory_order_relaxed);
}

void sample(const void* pointer) noexcept {
  const site_describer describe = describer.load(std::memory_order_relaxed);
  if (describe == nullptr || is_describing) return;
  is_describing = true;
  try {
    if (const std::string site = describe(); !site.empty()) enter(pointer, site);
  } catch (const std::exception&) {  // the host has no memory for it: the block is not sampled
  }
  is_describing = false;
}

}  // namespace

void sample_call_sites(std::size_t every, site_describer describe) {
  describer.store(describe, std::memory_order_relaxed);
  sampled_every.store(describe != nullptr ? every : 0, std::memory_order_relaxed);
  if (every != 0) return;
  site_table& table = sites();
  const std::lock_guard lock(table.mutex);
  table.of_block.clear();
  table.numbers.clear();
  blocks_sampled.store(0, std::memory_order_relaxed);
}

CENOTE_COLD void call_sites::note(const void* pointer) noexcept {
  const std::size_t every = sampled_every.load(std::memory_order_relaxed);
  if (every == 0 || ++allocations_since_sample < every) return;
  allocations_since_sample = 0;
  sample(pointer);
}

CENOTE_COLD void call_sites::forget(const void* pointer) noexcept {
  site_table& table = sites();
  const std::lock_guard lock(table.mutex);
  table.of_block.erase(pointer);
  blocks_sampled.store(table.of_block.size(), std::memory_order_relaxed);
}

known_sites sites_of(const std::vector<std::uintptr_t>& addresses) {
  known_sites found;
  if (blocks_sampled.load(std::memory_order_relaxed) == 0) return found;
  site_table& table = sites();
  const std::lock_guard lock(table.mutex);
  found.names.resize(table.numbers.size());
  for (const auto& [name, number] : table.numbers) found.names[number] = name;
  found.of_block.reserve(addresses.size());
  for (const std::uintptr_t address : addresses) {
    const auto known = table.of_block.find(reinterpret_cast<const void*>(address));
    found.of_block.push_back(known == table.of_block.end() ? known_sites::no_site : known->second->second);
  }
  return found;
}

std::vector<sampled_block> sampled_blocks() {
  std::vector<sampled_block> all;
  site_table& table = sites();
  const std::lock_guard lock(table.mutex);
  for (const auto& [pointer, site] : table.of_block) {
    all.push_back({reinterpret_cast<std::uintptr_t>(pointer), site->first});
  }
  return all;
}

}  // namespace cenote::inline v1
