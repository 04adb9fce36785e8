// The C ABI (cenote.h): each function is the C++ one of the same meaning behind one error border.
#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/cenote_or_throw.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/nvtx.hpp"
#include "cenote/driver/page_set.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "cenote/surface/blocks_by_address.hpp"
#include "cenote/surface/captures.hpp"
#include "cenote/surface/client.hpp"
#include "cenote/surface/pause.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/region.hpp"
#include "cenote/surface/registry.hpp"
#include "cenote/surface/specification.hpp"

struct cenote_page_set {
  explicit cenote_page_set(int device) : pages(device) {}
  cenote::page_set pages;
};

namespace {

struct failure {
  cenote_status status = CENOTE_OK;
  std::string text;
};

/// The regions that the calling thread has entered by cenote_begin_region: destroyed from the innermost one on.
struct entered_region {
  entered_region(const char* name, int device) : scope(name, device) {}

  std::unique_ptr<entered_region> outer;
  cenote::region_scope scope;
};

thread_local std::unique_ptr<entered_region> innermost_region;

thread_local failure last_failure;  // NOLINT: the C ABI's one channel for what went wrong

/// The status stays where host memory has no room for the text.
void remember(cenote_status status, const char* text) noexcept {
  last_failure.status = status;
  try {
    last_failure.text = text;
  } catch (const std::bad_alloc&) {
    last_failure.text.clear();
  }
}

/// What the exception in flight means.
cenote_status remember_exception() noexcept {
  const auto as = [](cenote_status status, const std::exception& error) {
    remember(status, error.what());
    return status;
  };
  try {
    throw;
  } catch (const cenote::out_of_memory& error) {
    return as(CENOTE_OUT_OF_MEMORY, error);
  } catch (const cenote::cuda_error& error) {
    return as(CENOTE_CUDA_ERROR, error);
  } catch (const cenote::driver_unavailable& error) {
    return as(CENOTE_NO_DRIVER, error);
  } catch (const std::out_of_range& error) {
    return as(CENOTE_OUT_OF_RANGE, error);
  } catch (const std::logic_error& error) {
    return as(CENOTE_INVALID_ARGUMENT, error);
  } catch (const std::exception& error) {
    return as(CENOTE_FAILURE, error);
  } catch (...) {
    remember(CENOTE_FAILURE, "an unknown error");
    return CENOTE_FAILURE;
  }
}

/// Runs `body`; what it throws becomes a negative status and a text.
template <class Result = int, class Body>
Result guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return static_cast<Result>(remember_exception());
  }
}

/// The same for a body that returns nothing.
template <class Body>
int guarded_status(Body&& body) noexcept {
  return guarded([&] {
    body();
    return static_cast<int>(CENOTE_OK);
  });
}

/// The same where null means that it failed.
template <class Body>
void* guarded_pointer(Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    remember_exception();
    return nullptr;
  }
}

template <class T>
T* required(T* pointer, const char* parameter) {
  if (pointer == nullptr) throw std::invalid_argument(std::string(parameter) + " must not be null");
  return pointer;
}

cenote::stream_ref as_stream(void* handle) { return static_cast<CUstream_st*>(handle); }

int freed(bool was_known) noexcept {
  if (was_known) return CENOTE_OK;
  remember(CENOTE_UNKNOWN_POINTER, "the pointer is not outstanding: it was freed already, or not allocated here");
  return CENOTE_UNKNOWN_POINTER;
}

/// What the caller has room for of `known`. `first_size` is that of the struct when it was first published.
template <class Struct>
void hand_out(Struct known, Struct* to, std::size_t first_size, const char* name) {
  const std::size_t room = to->struct_size;
  if (room < first_size) {
    throw std::invalid_argument(std::string(name) + ".struct_size is " + std::to_string(room) + ", and no " + name +
                                " is smaller than " + std::to_string(first_size) + " bytes");
  }
  known.struct_size = std::min(room, sizeof(Struct));
  std::memcpy(to, &known, known.struct_size);
}

/// Writes what fits, and returns the length of all.
int64_t cut_off(const std::string& whole, char* to, std::size_t capacity) {
  if (capacity != 0) to[whole.copy(to, capacity - 1)] = '\0';
  return static_cast<int64_t>(whole.size());
}

std::uint64_t figure(const std::optional<std::size_t>& bytes) { return bytes ? *bytes : CENOTE_UNKNOWN; }

/// The outermost resource of that class in a stack; null if there is none.
template <class Resource>
const Resource* find_in_stack(const std::shared_ptr<cenote::memory_resource>& outermost) {
  for (auto resource = outermost; resource; resource = resource->upstream()) {
    if (const auto* const found = dynamic_cast<const Resource*>(resource.get())) return found;  // `outermost` owns it
  }
  return nullptr;
}

cenote_memory_state state_of(const std::shared_ptr<cenote::memory_resource>& resource) {
  cenote_memory_state known{};
  const cenote::memory_state figures = resource->state();
  known.in_use = figure(figures.in_use);
  known.held = figure(figures.held);
  known.limit = figure(figures.limit);
  known.largest_free = figure(figures.largest_free);
  known.device_free = figure(figures.device_free);
  known.device_total = figure(figures.device_total);
  known.peak = known.allocations = known.total_allocations = CENOTE_UNKNOWN;
  if (const auto* const statistics = find_in_stack<cenote::statistics_resource_adaptor>(resource)) {
    const auto counted = statistics->counters();
    known.peak = static_cast<std::uint64_t>(counted.bytes.peak);
    known.allocations = static_cast<std::uint64_t>(counted.count.current);
    known.total_allocations = static_cast<std::uint64_t>(counted.count.total);
  }
  known.pool_allocations = known.pool_waits = CENOTE_UNKNOWN;
  known.pool_upstream_allocations = known.pool_upstream_frees = CENOTE_UNKNOWN;
  if (const auto* const pool = find_in_stack<cenote::pool_memory_resource>(resource)) {
    const cenote::pool_counters counted = pool->counters();
    known.pool_allocations = counted.allocations;
    known.pool_waits = counted.waits;
    known.pool_upstream_allocations = counted.upstream_allocations;
    known.pool_upstream_frees = counted.upstream_frees;
  }
  return known;
}

constexpr std::size_t first_memory_state_size = 112;
constexpr std::size_t first_client_usage_size = 40;
static_assert(sizeof(cenote_memory_state) >= first_memory_state_size);
static_assert(sizeof(cenote_client_usage) >= first_client_usage_size);

constexpr cenote_api functions = {
    sizeof(cenote_api),
    CENOTE_ABI_VERSION,
    cenote_last_status,
    cenote_last_error,
    cenote_device_count,
    cenote_current_device,
    cenote_set_device_resource,
    cenote_get_device_resource,
    cenote_reset_device_resource,
    cenote_trim,
    cenote_get_memory_state,
    cenote_register_client,
    cenote_get_client_usage,
    cenote_allocate,
    cenote_allocate_or_throw,
    cenote_deallocate,
    cenote_allocate_sync,
    cenote_deallocate_sync,
    cenote_record_stream,
    cenote_capture_begin,
    cenote_capture_end,
    cenote_registry_address,
    cenote_allocate_holding_or_throw,
    cenote_deallocate_holding,
    cenote_install_resource,
    cenote_trim_to,
    cenote_share,
    cenote_unshare,
    cenote_open_shared,
    cenote_close_shared,
    cenote_make_page_set,
    cenote_map_page_set,
    cenote_unmap_page_set,
    cenote_trim_page_set,
    cenote_pool_bytes,
    cenote_begin_region,
    cenote_end_region,
    cenote_pause,
    cenote_resume,
    cenote_allocate_aligned,
    cenote_graph_pool_begin,
    cenote_graph_pool_end,
    cenote_graph_pool_release,
    cenote_graph_pool_begin_if,
};

}  // namespace

extern "C" {

int cenote_abi_version(void) { return CENOTE_ABI_VERSION; }

const cenote_api* cenote_get_api(int abi_version) {
  if (abi_version == CENOTE_ABI_VERSION) return &functions;
  guarded_status([=] {
    throw std::invalid_argument("this cenote has version " + std::to_string(CENOTE_ABI_VERSION) +
                                " of its C ABI, not version " + std::to_string(abi_version));
  });
  return nullptr;
}

int cenote_last_status(void) { return last_failure.status; }

const char* cenote_last_error(void) { return last_failure.text.c_str(); }

int cenote_device_count(void) {
  return guarded([] { return cenote::device_count(); });
}

int cenote_current_device(void) {
  return guarded([] { return cenote::current_device(); });
}

int cenote_set_device_resource(int device, const char* specification) {
  return guarded_status([=] {
    cenote::set_per_device_resource(device, cenote::make_resource(required(specification, "specification"), device));
  });
}

int cenote_install_resource(const char* specification) {
  return guarded_status([=] { cenote::install_resource(required(specification, "specification")); });
}

int64_t cenote_get_device_resource(int device, char* text, size_t capacity) {
  return guarded<int64_t>([=] {
    if (capacity != 0) required(text, "text");
    return cut_off(cenote::describe(*cenote::get_per_device_resource(device)), text, capacity);
  });
}

int cenote_reset_device_resource(int device) {
  return guarded_status([=] { cenote::reset_per_device_resource(device); });
}

int64_t cenote_trim(int device) { return cenote_trim_to(device, 0, 0); }

int64_t cenote_trim_to(int device, size_t keep_bytes, int wait) {
  return guarded<int64_t>([=] {
    cenote::check_device(device);
    const cenote::nvtx::trim_range range(keep_bytes);
    cenote::reclaimer::of(device).free_pending();
    const auto resource = cenote::find_per_device_resource(device);
    std::size_t released = resource ? resource->trim(keep_bytes, wait != 0) : 0;
    if (keep_bytes == 0) {
      for (const auto& each : cenote::region_resources_on(device)) released += each->trim(0, wait != 0);
    }
    if (!resource && released == 0) return int64_t{0};
    cenote::recorder::note(cenote::recorder::event::trim, device, nullptr, released, {});
    return static_cast<int64_t>(released);
  });
}

int cenote_get_memory_state(int device, cenote_memory_state* state) {
  return guarded_status([=] {
    hand_out(state_of(cenote::get_per_device_resource(device)), required(state, "state"), first_memory_state_size,
             "cenote_memory_state");
  });
}

int64_t cenote_pool_bytes(int device) {
  return guarded<int64_t>([=] {
    const auto resource = cenote::get_per_device_resource(device);
    const auto* const pool = find_in_stack<cenote::pool_memory_resource>(resource);
    if (pool == nullptr) throw std::invalid_argument("the resource of the device has no pool");
    std::size_t bytes = pool->pool_size();
    for (const auto& each : cenote::region_resources_on(device)) {
      if (each.get() != pool) bytes += each->state().held.value_or(0);
    }
    return static_cast<int64_t>(bytes);
  });
}

int cenote_begin_region(int device, const char* name) {
  return guarded_status([=] {
    cenote::check_device(device);
    auto entered = std::make_unique<entered_region>(required(name, "name"), device);
    entered->outer = std::move(innermost_region);
    innermost_region = std::move(entered);
  });
}

int cenote_end_region(void) {
  return guarded_status([] {
    if (innermost_region == nullptr) throw std::invalid_argument("this thread has begun no region");
    if (!innermost_region->scope.is_innermost()) {
      throw std::invalid_argument("a region ends after the scopes that began within it");
    }
    innermost_region = std::move(innermost_region->outer);
  });
}

int64_t cenote_pause(const char* region, const char* keep) {
  return guarded<int64_t>([=] {
    const std::string where = required(keep, "keep");
    return static_cast<int64_t>(region == nullptr ? cenote::pause_all(where) : cenote::pause_region(region, where));
  });
}

int64_t cenote_resume(const char* region) {
  return guarded<int64_t>(
      [=] { return static_cast<int64_t>(region == nullptr ? cenote::resume_all() : cenote::resume_region(region)); });
}

int cenote_register_client(const char* name) {
  return guarded([=] { return cenote::register_client(required(name, "name")); });
}

int cenote_get_client_usage(int client, cenote_client_usage* usage) {
  return guarded_status([=] {
    cenote::check_client(client);
    const cenote::client_usage held = cenote::usage().at(static_cast<std::size_t>(client));
    const cenote_client_usage known = {0, held.bytes, held.peak_bytes, held.allocations, held.total_allocations};
    hand_out(known, required(usage, "usage"), first_client_usage_size, "cenote_client_usage");
  });
}

CENOTE_HOT void* cenote_allocate(int client, int device, size_t bytes, void* stream) {
  return guarded_pointer([=] { return cenote::client_allocate(client, device, bytes, as_stream(stream)); });
}

void* cenote_allocate_aligned(int client, int device, size_t bytes, size_t alignment, void* stream) {
  return guarded_pointer(
      [=] { return cenote::client_allocate(client, device, bytes, as_stream(stream), {}, alignment); });
}

CENOTE_HOT void* cenote_allocate_or_throw(int client, int device, size_t bytes, void* stream) {
  return cenote::client_allocate(client, device, bytes, as_stream(stream));
}

CENOTE_HOT int cenote_deallocate(void* pointer, void* stream) {
  return freed(cenote::client_deallocate(pointer, as_stream(stream)));
}

CENOTE_HOT void* cenote_allocate_holding_or_throw(int client, int device, size_t bytes, void* stream,
                                                  void* (*release)(void), void (*acquire)(void*)) {
  return cenote::client_allocate(client, device, bytes, as_stream(stream), {release, acquire});
}

CENOTE_HOT int cenote_deallocate_holding(void* pointer, void* stream, void* (*release)(void), void (*acquire)(void*)) {
  return freed(cenote::client_deallocate(pointer, as_stream(stream), {release, acquire}));
}

void* cenote_allocate_sync(int client, int device, size_t bytes) {
  return guarded_pointer([=] { return cenote::client_allocate_sync(client, device, bytes); });
}

int cenote_deallocate_sync(void* pointer) { return freed(cenote::client_deallocate_sync(pointer)); }

int cenote_record_stream(void* pointer, void* stream) {
  return guarded_status([=] { cenote::client_record_stream(pointer, as_stream(stream)); });
}

int64_t cenote_share(int device, const void* pointer, size_t bytes, void* stream, char* handle, size_t capacity) {
  return guarded<int64_t>([=] {
    if (capacity != 0) required(handle, "handle");
    return cut_off(cenote::share_address(device, required(pointer, "pointer"), bytes, as_stream(stream)), handle,
                   capacity);
  });
}

int cenote_unshare(const void* pointer) {
  return guarded([=] { return cenote::unshare_address(pointer) ? 1 : 0; });
}

void* cenote_open_shared(const char* handle, void* stream, size_t* bytes, int* device) {
  return guarded_pointer([=] {
    const cenote::opened_block block = cenote::open_block(required(handle, "handle"), as_stream(stream));
    if (bytes != nullptr) *bytes = block.bytes;
    if (device != nullptr) *device = block.device;
    return block.address;
  });
}

int cenote_close_shared(void* pointer, void* stream) {
  return guarded_status([=] { cenote::close_block(pointer, as_stream(stream)); });
}

int cenote_capture_begin(int device) {
  return guarded_status([=] { cenote::begin_capture(device); });
}

int cenote_capture_end(int device) {
  return guarded_status([=] { cenote::end_capture(device); });
}

int cenote_graph_pool_begin(int device, uint64_t first, uint64_t second, void* stream) {
  return guarded_status([=] { cenote::begin_capture_into(device, {first, second}, as_stream(stream)); });
}

int cenote_graph_pool_begin_if(int device, uint64_t first, uint64_t second, int (*takes)(void* data, void* stream),
                               void* data, void (*drop)(void* data)) {
  return guarded_status([=] {
    if (takes == nullptr) throw std::invalid_argument("takes is null");
    const auto dropped = std::make_shared<bool>(false);  // only once it is begun
    const std::shared_ptr<void> kept(data, [=](void* gone) {
      if (*dropped && drop != nullptr) drop(gone);
    });
    cenote::begin_capture_into(device, {first, second},
                               [=](cenote::stream_ref stream) { return takes(kept.get(), stream.value()) != 0; });
    *dropped = true;
  });
}

int cenote_graph_pool_end(int device, uint64_t first, uint64_t second) {
  return guarded_status([=] { cenote::end_capture_into(device, {first, second}); });
}

int cenote_graph_pool_release(int device, uint64_t first, uint64_t second) {
  return guarded_status([=] { cenote::release_graph_pool(device, {first, second}); });
}

cenote_page_set* cenote_make_page_set(int device) {
  return static_cast<cenote_page_set*>(guarded_pointer([=] { return new cenote_page_set(device); }));
}

void* cenote_map_page_set(cenote_page_set* set, size_t offset, size_t bytes) {
  return guarded_pointer([=] {
    void* const range = required(set, "set")->pages.map(offset, bytes);
    if (range == nullptr) throw cenote::out_of_memory("a set of pages", bytes, {});
    return range;
  });
}

int cenote_unmap_page_set(cenote_page_set* set, void* pointer) {
  return guarded([=] { return freed(required(set, "set")->pages.unmap(static_cast<std::byte*>(pointer))); });
}

int64_t cenote_trim_page_set(cenote_page_set* set, int wait) {
  return guarded<int64_t>([=] { return static_cast<int64_t>(required(set, "set")->pages.trim(wait != 0)); });
}

const void* cenote_registry_address(void) { return cenote::registry_address(); }

}  // extern "C"
