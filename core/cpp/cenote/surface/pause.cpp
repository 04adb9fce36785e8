#include "cenote/surface/pause.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/quoted.hpp"
#include "cenote/resource_adaptor.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/pools_held_still.hpp"
#include "cenote/surface/region.hpp"
#include "cenote/surface/registry.hpp"

namespace cenote::inline v1 {

namespace {

using pausable_pools = std::vector<std::shared_ptr<pool_memory_resource>>;

/// The pool of a stack that can be paused; null if there is none.
std::shared_ptr<pool_memory_resource> find_pool(std::shared_ptr<memory_resource> outermost) {
  for (auto each = std::move(outermost); each; each = each->upstream()) {
    auto pool = std::dynamic_pointer_cast<pool_memory_resource>(each);
    if (pool && pool->can_be_paused()) return pool;
  }
  return nullptr;
}

/// Finds a resource above the pool that keeps memory of the pool, as an arena does: it would hand out addresses without
/// pages. Null if there are only adaptors, which pass each call on.
std::shared_ptr<memory_resource> find_keeper(std::shared_ptr<memory_resource> outermost) {
  const auto pool = find_pool(outermost);
  for (auto each = std::move(outermost); each && each != pool; each = each->upstream()) {
    if (!std::dynamic_pointer_cast<resource_adaptor>(each)) return each;
  }
  return nullptr;
}

std::shared_ptr<pool_memory_resource> require_pool(const std::shared_ptr<memory_resource>& resource) {
  if (!resource) throw std::invalid_argument("a resource that is paused cannot be null");
  if (auto pool = find_pool(resource)) return pool;
  throw std::invalid_argument("only a pool over virtual memory can be paused, and '" + resource->specification() +
                              "' has none");
}

void require_no_keeper(const std::shared_ptr<memory_resource>& resource) {
  const auto keeper = find_keeper(resource);
  if (!keeper) return;
  throw std::invalid_argument("a pool cannot be paused under '" + keeper->kind() +
                              "', which keeps memory of it and would hand that out meanwhile: '" +
                              resource->specification() + "'");
}

/// Nothing where require_no_keeper would refuse.
void add_pool(pausable_pools& all, const std::shared_ptr<memory_resource>& resource) {
  if (find_keeper(resource)) return;
  auto pool = find_pool(resource);
  if (pool && std::ranges::find(all, pool) == all.end()) all.push_back(std::move(pool));
}

/// Its pool on a device that it was first used on since may be running while the others are paused.
pausable_pools of_region(const std::string& name) {
  pausable_pools all;
  for (const auto& each : region_resources(name)) add_pool(all, each);
  return all;
}

pausable_pools of_everything() {
  pausable_pools all;
  for (const std::string& name : region_names()) {
    for (const auto& each : region_resources(name)) add_pool(all, each);
  }
  for (const int device : devices_with_resource()) add_pool(all, find_process_resource(device));
  return all;
}

/// Twice, if need be.
template <class Undo>
void undo_or_report(pool_memory_resource& pool, Undo&& undo) noexcept {
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      return static_cast<void>(undo(pool));
    } catch (const std::exception& error) {
      report_once("of several pools one could not be paused or resumed, nor one before it be put back: ", error.what());
    }
  }
}

/// Does one thing to all, and the other to those before the first one that fails.
template <class Do, class Undo>
std::size_t do_to_all(const pausable_pools& all, Do&& act, Undo&& undo) {
  std::size_t bytes = 0;
  std::size_t done = 0;
  try {
    for (const auto& each : all) {
      bytes += act(*each);
      ++done;
    }
  } catch (...) {
    for (std::size_t i = 0; i < done; ++i) undo_or_report(*all[i], undo);
    throw;
  }
  return bytes;
}

struct pool_pause {
  std::shared_ptr<pool_memory_resource> pool;
  std::string keep;
};

/// Those that are paused already stay as they are; there must be others. No memory is released before all are unmapped,
/// so that what is put back has its contents, whatever is kept.
std::size_t pause_these(const std::vector<pool_pause>& plan, const std::string& if_none) {
  pausable_pools all;
  for (const pool_pause& each : plan) all.push_back(each.pool);
  const pools_held_still held(std::move(all));
  const pausable_pools running = held.which(false);
  if (running.empty()) throw std::runtime_error(if_none);
  const auto hide = [&](pool_memory_resource& one) {
    const auto planned = std::ranges::find(plan, &one, [](const pool_pause& each) { return each.pool.get(); });
    return held.hide(one, planned->keep);
  };
  std::size_t bytes = do_to_all(running, hide, [](pool_memory_resource& each) { each.resume(); });
  for (const auto& each : running) bytes += held.release(*each);
  return bytes;
}

std::vector<pool_pause> with_keep(pausable_pools pools, const std::string& keep) {
  std::vector<pool_pause> plan;
  for (auto& each : pools) plan.push_back({std::move(each), keep});
  return plan;
}

/// Where undoing means to pause again, the contents are kept by the host.
std::size_t resume_these(pausable_pools all, const std::string& if_none) {
  const pools_held_still held(std::move(all));
  const pausable_pools paused = held.which(true);
  if (paused.empty()) throw std::runtime_error(if_none);
  return do_to_all(
      paused, [](pool_memory_resource& each) { return each.resume(); },
      [](pool_memory_resource& each) { each.pause(); });
}

}  // namespace

std::size_t pause(const std::shared_ptr<memory_resource>& resource, const std::string& keep) {
  const auto pool = require_pool(resource);
  require_no_keeper(resource);
  return pool->pause(keep);
}

std::size_t resume(const std::shared_ptr<memory_resource>& resource) { return require_pool(resource)->resume(); }

std::size_t pause_region(const std::string& name, const std::string& keep) {
  return pause_these(with_keep(of_region(name), keep), "the region " + quoted(name, "") + " is paused already");
}

std::size_t pause_regions(const std::vector<region_pause>& regions) {
  std::vector<pool_pause> plan;
  for (const region_pause& each : regions) {
    for (pool_pause& one : with_keep(of_region(each.region), each.keep)) {
      if (std::ranges::find(plan, one.pool, &pool_pause::pool) == plan.end()) plan.push_back(std::move(one));
    }
  }
  return pause_these(plan, plan.empty() ? "no region is named" : "the regions are paused already");
}

std::size_t resume_region(const std::string& name) {
  return resume_these(of_region(name), "the region " + quoted(name, "") + " is not paused");
}

std::size_t pause_all(const std::string& keep) {
  return pause_these(with_keep(of_everything(), keep), "there is nothing to pause");
}

std::size_t resume_all() { return resume_these(of_everything(), "nothing is paused"); }

bool is_paused(const std::shared_ptr<memory_resource>& resource) {
  const auto pool = find_pool(resource);
  return pool && pool->is_paused();
}

std::size_t paused_bytes(const std::shared_ptr<memory_resource>& resource) {
  const auto pool = find_pool(resource);
  return pool ? pool->paused_bytes() : 0;
}

bool read_paused(const std::shared_ptr<memory_resource>& resource, void* to, const void* from, std::size_t bytes) {
  const auto pool = find_pool(resource);
  return pool && pool->read_paused(to, from, bytes);
}

std::size_t keep_pinned_at_most(std::size_t bytes) { return pinned_chunks::get().keep_at_most(bytes); }

std::size_t kept_pinned_bytes() { return pinned_chunks::get().kept_bytes(); }

}  // namespace cenote::inline v1
