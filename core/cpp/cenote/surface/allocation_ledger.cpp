#include "cenote/surface/allocation_ledger.hpp"

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "cenote/ground/process.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/registry.hpp"

namespace cenote {
namespace {

struct allocation {
  std::shared_ptr<memory_resource> resource;
  std::size_t bytes;
  stream_id stream;
  client_index client;
  bool is_shared = false;  // used on other streams too
};

struct alignas(64) shard {
  std::mutex mutex;  // guards `allocations`
  std::unordered_map<void*, allocation> allocations;
};

constexpr unsigned shard_bits = 6;

shard& shard_of(void* pointer) noexcept {
  static auto* const shards = new std::array<shard, std::size_t{1} << shard_bits>;
  constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing
  return (*shards)[(reinterpret_cast<std::uintptr_t>(pointer) * golden_ratio) >> (64 - shard_bits)];
}

void insert(void* pointer, const allocation& made) {
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.mutex);
  place.allocations.insert_or_assign(pointer, made);
}

std::optional<allocation> remove(void* pointer) noexcept {
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.mutex);
  const auto found = place.allocations.find(pointer);
  if (found == place.allocations.end()) return std::nullopt;
  std::optional<allocation> removed(std::move(found->second));
  place.allocations.erase(found);
  return removed;
}

/// Nothing for an unknown pointer, and once the driver is gone.
std::optional<int> device_of_block(void* pointer) noexcept {
  if (driver_is_gone()) return std::nullopt;
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.mutex);
  const auto found = place.allocations.find(pointer);
  return found == place.allocations.end() ? std::nullopt : std::optional(found->second.resource->device());
}

/// Whether `stream` is the one that the block was allocated on, and no other has used it.
bool is_ordered_by(const allocation& made, stream_ref stream) noexcept {
  if (made.is_shared) return false;
  try {
    return identify(stream, made.resource->device()) == made.stream;
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace

void* client_allocate(client_index client, int device, std::size_t bytes, stream_ref stream) {
  check_client(client);
  auto resource = get_per_device_resource(device);
  const stream_id id = identify(stream, device);
  void* pointer = resource->try_allocate(stream, bytes);
  if (pointer == nullptr && !id.is_capturing())
    reclaimer::of(device).free_pending();  // what was held back may be enough
  if (pointer == nullptr) pointer = resource->allocate(stream, bytes);
  if (pointer == nullptr) return nullptr;
  try {
    insert(pointer, {resource, bytes, id, client});
  } catch (...) {
    resource->deallocate(stream, pointer, bytes);
    throw;
  }
  client_allocated(client, bytes);
  return pointer;
}

bool client_deallocate(void* pointer, stream_ref stream) noexcept {
  if (pointer == nullptr || driver_is_gone()) return true;
  auto made = remove(pointer);
  if (!made) {
    report_once(
        "a pointer was freed that cenote did not give to a framework, or that was freed already; it is ignored");
    return false;
  }
  client_freed(made->client, made->bytes);
  if (is_ordered_by(*made, stream)) {
    made->resource->deallocate(stream, pointer, made->bytes);
  } else {
    const int device = made->resource->device();
    reclaimer::of(device).free_after_all_work(std::move(made->resource), pointer, made->bytes, stream);
  }
  return true;
}

void* client_allocate_sync(client_index client, int device, std::size_t bytes) {
  void* const pointer = client_allocate(client, device, bytes, {});
  if (pointer == nullptr) return nullptr;
  try {
    synchronize(stream_ref{}, device);
  } catch (...) {
    client_deallocate(pointer, {});
    throw;
  }
  return pointer;
}

bool client_deallocate_sync(void* pointer) noexcept {
  if (const auto device = device_of_block(pointer)) {
    try {
      synchronize(stream_ref{}, *device);
    } catch (const std::exception& error) {
      report_once(error.what());
    }
  }
  return client_deallocate(pointer, {});
}

void client_record_stream(void* pointer, stream_ref stream) {
  shard& place = shard_of(pointer);
  int device = 0;
  stream_id allocated_on;
  {
    const std::lock_guard lock(place.mutex);
    const auto found = place.allocations.find(pointer);
    if (found == place.allocations.end() || found->second.is_shared) return;
    device = found->second.resource->device();
    allocated_on = found->second.stream;
  }
  if (identify(stream, device) != allocated_on) client_share(pointer);
}

void client_share(void* pointer) noexcept {
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.mutex);
  const auto found = place.allocations.find(pointer);
  if (found != place.allocations.end()) found->second.is_shared = true;
}

}  // namespace cenote
