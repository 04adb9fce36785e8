#include "cenote/surface/allocation_ledger.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/identified_scope.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/process.hpp"
#include "cenote/ground/spin_lock.hpp"
#include "cenote/surface/allocation_table.hpp"
#include "cenote/surface/call_site.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/resource_place.hpp"
#include "cenote/surface/shortage.hpp"

namespace cenote::inline v1 {
namespace {

struct alignas(64) shard {
  spin_lock lock;                   // guards all below
  std::uint64_t last_event_ns = 0;  // of all its addresses
  allocation_table allocations;

  /// The time of an event of one of its addresses, `now` or later. The caller holds the lock.
  std::uint64_t next_event(std::uint64_t now) noexcept { return last_event_ns = std::max(now, last_event_ns + 1); }
};

constexpr unsigned shard_bits = 6;

using shard_table = std::array<shard, std::size_t{1} << shard_bits>;

shard_table& shards() noexcept {
  static immortal<shard_table> all;
  return *all;
}

shard& shard_of(const void* pointer) noexcept { return shards()[allocation_table::hash(pointer) >> (64 - shard_bits)]; }

/// Does what insert() says, in a shard that has room.
[[gnu::always_inline]] inline std::uint64_t insert_locked(shard& place, allocation& made, std::uint64_t now) noexcept {
  place.allocations.insert(made);
  if (made.pointer != nullptr) [[unlikely]]
    place.next_event(now);
  return place.next_event(now);
}

CENOTE_COLD std::uint64_t insert_into_more_room(shard& place, allocation& made, std::uint64_t now) {
  std::vector<allocation> room;
  for (std::size_t places = 0;; room = std::vector<allocation>(places)) {
    const std::lock_guard lock(place.lock);
    if (!room.empty()) place.allocations.move_into(room);
    if (place.allocations.has_room()) return insert_locked(place, made, now);
    places = place.allocations.places_to_bring();
  }
}

/// Returns the time of the allocation. `made` is then what was written down for its address before: none, as a rule;
/// else that is freed a nanosecond before. Has done nothing if it throws.
[[gnu::always_inline]] inline std::uint64_t insert(allocation& made) {
  shard& place = shard_of(made.pointer);
  const std::uint64_t now = recorder::now();
  {
    const std::lock_guard lock(place.lock);
    if (place.allocations.has_room()) [[likely]]
      return insert_locked(place, made, now);
  }
  return insert_into_more_room(place, made, now);
}

enum class freed_by : bool { ledger, client };

struct removal {
  allocation made;  // what was written down, and is no more; none for an address that is unknown, or that others free
  std::uint64_t at;
};

CENOTE_HOT removal remove(const void* pointer, freed_by whom) noexcept {
  shard& place = shard_of(pointer);
  const std::uint64_t now = recorder::now();
  const std::lock_guard lock(place.lock);
  allocation* const found = place.allocations.find(pointer);
  const std::uint64_t at = place.next_event(now);
  if (found == nullptr || found->resource.is_empty() != (whom == freed_by::client)) return {{}, at};
  return {place.allocations.remove(*found), at};
}

/// Nothing for an unknown pointer, and once the driver is gone.
std::optional<int> device_of_block(void* pointer) noexcept {
  if (driver_is_gone()) return std::nullopt;
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.lock);
  allocation* const found = place.allocations.find(pointer);
  return found == nullptr ? std::nullopt : std::optional(int{found->device});
}

/// Whether `stream` is the one that the block was allocated on, and no other has used it: its id in `made` is then that
/// of `stream`.
CENOTE_HOT bool is_ordered_by(const allocation& made, stream_ref stream) noexcept {
  if (made.is_shared) return false;
  try {
    return identify(stream, made.resource->device()) == made.stream;
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

/// The devices after whose work a block is freed. A stream of which the driver tells nothing may be any device's.
reach reach_of(const allocation& made, stream_ref stream) noexcept {
  if (made.is_used_by_others) return reach::every_device;
  try {
    const int its_device = made.resource->device();
    return device_of_stream(stream, its_device) == its_device ? reach::its_device : reach::every_device;
  } catch (const std::exception& error) {
    report_once(error.what());
    return reach::every_device;
  }
}

/// The caller's lock is let go until the end of the scope.
class lock_released {
 public:
  explicit lock_released(caller_lock lock) : lock_(lock), released_(lock ? lock.release() : nullptr) {}
  ~lock_released() {
    if (lock_) lock_.acquire(released_);
  }
  lock_released(const lock_released&) = delete;
  lock_released& operator=(const lock_released&) = delete;

 private:
  caller_lock lock_;
  void* released_;
};

CENOTE_HOT void drop(resource_hold& resource, caller_lock held) noexcept {
  if (resource.drop_unless_last()) return;
  const lock_released waiting(held);
  resource.drop();
}

/// What a client has freed, or is about to free.
CENOTE_HOT void note_free(const allocation& freed, std::uint64_t at) noexcept {
  forget_call_site(freed.pointer);
  client_freed(freed.client, freed.device, freed.bytes, freed.tag);
  recorder::note(recorder::event::free, freed.device, freed.pointer, freed.bytes, freed.whose(), at);
}

/// Writes a block down and returns its address. Throws, and has freed it, where host memory has no room for that.
CENOTE_HOT void* enter(allocation& made, stream_ref stream, caller_lock held) {
  void* const pointer = made.pointer;
  const client_index client = made.client;
  const tag_index tag = made.tag = current_tag();
  const std::size_t bytes = made.bytes;
  const int device = made.device;
  const recorder::whose whose = made.whose();
  std::uint64_t at = 0;
  try {
    at = insert(made);
  } catch (...) {
    const lock_released waiting(held);
    made.resource->deallocate(stream, pointer, bytes, made.alignment());
    made.resource.drop();
    throw;
  }
  if (made.pointer != nullptr) note_free(made, at - 1);  // its resource has handed the address out twice
  drop(made.resource, held);
  client_allocated(client, device, bytes, tag);
  recorder::note(recorder::event::allocate, device, pointer, bytes, whose, at);
  note_call_site(pointer);
  return pointer;
}

allocation begin(client_index client, int device, std::size_t bytes, stream_id stream, resource_hold resource,
                 std::size_t alignment = default_alignment) {
  return {.resource = std::move(resource),
          .bytes = bytes,
          .stream = stream,
          .client = static_cast<std::uint8_t>(client),
          .device = static_cast<std::uint8_t>(device),
          .log2_alignment = static_cast<std::uint8_t>(std::countr_zero(alignment))};
}

CENOTE_HOT void* allocate_at_once(client_index client, int device, std::size_t bytes, stream_ref stream,
                                  std::size_t alignment, caller_lock held) {
  const stream_id id = identify(stream, device);
  const identified_scope identified(stream, device, id);
  allocation made = begin(client, device, bytes, id, find_resource_hold(device), alignment);
  if (made.resource.is_empty()) return nullptr;
  made.pointer = made.resource->allocate_at_once(stream, bytes, alignment);
  if (made.pointer != nullptr) return enter(made, stream, held);
  drop(made.resource, held);
  return nullptr;
}

/// Sets `made.pointer`, for an allocation that its resource could not serve: tries again with what was held back, and
/// then with what pressure handlers give back. Throws where that is not enough.
CENOTE_COLD void allocate_under_pressure(allocation& made, stream_ref stream) {
  const auto try_again = [&] {
    if (!made.stream.is_capturing()) reclaimer::of(made.device).free_pending();  // what was held back may be enough
    made.pointer = made.resource->try_allocate(stream, made.bytes, made.alignment());
    return made.pointer != nullptr;
  };
  if (try_again()) return;
  auto steps = relieve_pressure(*made.resource.resource(), stream, made.bytes, try_again);
  if (made.pointer != nullptr) return;
  const out_of_memory error = made.resource->shortage_of(stream, made.bytes, std::move(steps), made.alignment());
  throw explained(error, made.client, made.stream);
}

CENOTE_HOT void* allocate_waiting(client_index client, int device, std::size_t bytes, stream_ref stream,
                                  std::size_t alignment) {
  resource_hold current = get_resource_hold(device);
  allocation made = begin(client, device, bytes, identify(stream, device), std::move(current), alignment);
  const identified_scope identified(stream, device, made.stream);
  made.pointer = made.resource->try_allocate(stream, bytes, alignment);
  if (made.pointer == nullptr) [[unlikely]] {
    if (bytes == 0) return nullptr;
    allocate_under_pressure(made, stream);
  }
  return enter(made, stream, {});
}

}  // namespace

CENOTE_HOT void* client_allocate(client_index client, int device, std::size_t bytes, stream_ref stream,
                                 caller_lock held, std::size_t alignment) {
  check_client(client);
  if (!held) return allocate_waiting(client, device, bytes, stream, alignment);
  if (void* const pointer = allocate_at_once(client, device, bytes, stream, alignment, held)) return pointer;
  const lock_released waiting(held);
  return allocate_waiting(client, device, bytes, stream, alignment);
}

CENOTE_HOT bool client_deallocate(void* pointer, stream_ref stream, caller_lock held) noexcept {
  if (pointer == nullptr || driver_is_gone()) return true;
  auto [made, at] = remove(pointer, freed_by::ledger);
  if (made.pointer == nullptr) {
    const lock_released waiting(held);
    report_once(
        "a pointer was freed that cenote did not give to a framework, or that was freed already; it is ignored");
    return false;
  }
  note_free(made, at);
  const bool is_ordered = is_ordered_by(made, stream);
  std::optional<identified_scope> identified;
  if (is_ordered) identified.emplace(stream, made.resource->device(), made.stream);
  if (held && is_ordered && made.resource->deallocate_at_once(stream, pointer, made.bytes, made.alignment())) {
    drop(made.resource, held);
    return true;
  }
  const lock_released waiting(held);
  if (is_ordered) {
    made.resource->deallocate(stream, pointer, made.bytes, made.alignment());
  } else {
    const reach used_by = reach_of(made, stream);
    reclaimer& its = reclaimer::of(made.resource->device());
    its.free_after_all_work(made.resource.resource(), pointer, made.bytes, stream, used_by, made.alignment());
  }
  made.resource.drop();
  return true;
}

void* client_allocate_sync(client_index client, int device, std::size_t bytes) {
  const unnamed_stream stream(device);
  void* const pointer = client_allocate(client, device, bytes, stream.view());
  if (pointer == nullptr) return nullptr;
  try {
    stream.synchronize();
  } catch (...) {
    client_deallocate(pointer, stream.view());
    throw;
  }
  return pointer;
}

bool client_deallocate_sync(void* pointer) noexcept {
  std::optional<unnamed_stream> stream;
  if (const auto device = device_of_block(pointer)) {
    try {
      stream.emplace(*device);
      stream->synchronize();
    } catch (const std::exception& error) {
      report_once(error.what());
    }
  }
  return client_deallocate(pointer, stream ? stream->view() : stream_ref{});
}

CENOTE_HOT void client_holds(client_index client, int device, const void* pointer, std::size_t bytes,
                             stream_ref stream) noexcept {
  allocation made = begin(client, device, bytes, {}, {});
  made.pointer = const_cast<void*>(pointer);  // NOLINT: it is an address here
  made.tag = current_tag();
  try {
    made.stream = identify(stream, device);
  } catch (const std::exception& error) {
    report_once(error.what());
  }
  const recorder::whose whose = made.whose();
  tag_index tag = made.tag;
  std::uint64_t at = 0;
  try {
    at = insert(made);
    if (made.pointer != nullptr) note_free(made, at - 1);
  } catch (const std::bad_alloc&) {
    tag = 0;  // nobody could find it again
    at = recorder::now();
  }
  client_allocated(client, device, bytes, tag);
  recorder::note(recorder::event::allocate, device, pointer, bytes, whose, at);
  note_call_site(pointer);
}

CENOTE_HOT void client_lets_go(client_index client, int device, const void* pointer, std::size_t bytes) noexcept {
  auto [made, at] = remove(pointer, freed_by::client);
  if (made.pointer == nullptr) {
    made = begin(client, device, bytes, {}, {});
    made.pointer = const_cast<void*>(pointer);  // NOLINT: it is an address here
  }
  note_free(made, at);
}

std::vector<held_block> held_blocks(std::optional<int> device) {
  std::vector<held_block> all;
  for (shard& each : shards()) {
    for (std::size_t room = 0;;) {
      if (all.capacity() - all.size() < room) all.reserve(std::max(2 * all.capacity(), all.size() + room));
      const std::lock_guard lock(each.lock);
      room = each.allocations.size();
      if (all.capacity() - all.size() < room) continue;  // no memory is allocated under a lock
      each.allocations.for_each([&](const allocation& held) {
        if (device && *device != held.device) return;
        all.push_back({reinterpret_cast<std::uintptr_t>(held.pointer), held.bytes, held.stream.value, held.client,
                       held.tag, held.device});
      });
      break;
    }
  }
  return all;
}

void client_record_stream(void* pointer, stream_ref stream) {
  const auto device = device_of_block(pointer);
  if (!device) return;
  const bool is_default = stream.is_legacy_default() || stream.is_per_thread_default();
  const int its_device = is_default ? current_device() : device_of_stream(stream, *device);
  const stream_id used_on = identify(stream, *device);
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.lock);
  allocation* const found = place.allocations.find(pointer);
  if (found == nullptr) return;
  found->is_used_by_others = found->is_used_by_others || its_device != *device;
  found->is_shared = found->is_shared || found->is_used_by_others || used_on != found->stream;
}

void client_share(void* pointer) noexcept {
  shard& place = shard_of(pointer);
  const std::lock_guard lock(place.lock);
  if (allocation* const found = place.allocations.find(pointer)) found->is_shared = true;
}

}  // namespace cenote::inline v1
