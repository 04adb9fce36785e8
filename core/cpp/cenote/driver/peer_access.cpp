#include "cenote/driver/peer_access.hpp"

#include <array>
#include <bitset>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

using device_set = std::bitset<max_devices>;

struct open_pool {
  int device = 0;
  bool follows = false;
  device_set open{};
};

struct access_table {
  driver_mutex mutex;  // guards all below
  device_set in_use;
  std::unordered_map<CUmemoryPool, open_pool> pools;
  std::unordered_map<peer_follower*, int> followers;  // and the device of their memory
};

access_table& table() noexcept {
  static immortal<access_table> the_one;  // resources may outlive static objects
  return *the_one;
}

std::size_t bit(int device) { return static_cast<std::size_t>(device); }

bool can_reach(int device, int owner) {
  int can = 0;
  CENOTE_DRIVER_CALL(cuDeviceCanAccessPeer, &can, device, owner);
  return can != 0;
}

device_set reaching(device_set devices, int owner) {
  for (int device = 0; device < max_devices; ++device) {
    if (devices.test(bit(device)) && (device == owner || !can_reach(device, owner))) devices.reset(bit(device));
  }
  return devices;
}

device_set all_devices() {
  device_set all;
  for (int device = device_count(); device-- > 0;) all.set(bit(device));
  return all;
}

/// Those that were asked for, of a pool that does not follow.
device_set asked_for(const peer_devices& peers, int owner) {
  if (peers.which == peer_devices::choice::all) return reaching(all_devices(), owner);
  device_set all;
  for (const int device : peers.devices) {
    if (device != owner) all.set(bit(device));
  }
  return all;
}

void set_access(CUmemoryPool pool, const device_set& devices, CUmemAccess_flags flags) {
  std::array<CUmemAccessDesc, max_devices> wanted{};
  std::size_t count = 0;
  for (int device = 0; device < max_devices; ++device) {
    if (devices.test(bit(device))) wanted[count++] = {location_of(device), flags};
  }
  if (count == 0) return;
  const relaxed_capture_scope relaxed;
  CENOTE_DRIVER_CALL(cuMemPoolSetAccess, pool, wanted.data(), count);
}

void change_access(CUmemoryPool pool, open_pool& known, const device_set& wanted) {
  set_access(pool, known.open & ~wanted, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  known.open &= wanted;
  set_access(pool, wanted & ~known.open, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  known.open = wanted;
}

/// For a pool that follows: what was not asked for must not fail the caller.
void follow(CUmemoryPool pool, open_pool& known, const device_set& in_use) noexcept {
  try {
    change_access(pool, known, reaching(in_use, known.device));
  } catch (const std::exception& error) {
    report_once("the pool of device ", known.device, " stays closed to others: ", error.what());
  }
}

void open_to(peer_follower& memory, int owner, const device_set& devices) noexcept {
  try {
    const relaxed_capture_scope relaxed;
    const device_set peers = reaching(devices, owner);
    for (int device = 0; device < max_devices; ++device) {
      if (peers.test(bit(device))) memory.open_to(device);
    }
  } catch (const std::exception& error) {
    report_once("memory of device ", owner, " stays closed to others: ", error.what());
  }
}

}  // namespace

void check_peers(const peer_devices& peers, int device) {
  for (const int peer : peers.devices) {
    check_device(peer, "peers: ");
    if (peer == device || can_reach(peer, device)) continue;
    throw std::invalid_argument("peers: device " + std::to_string(peer) + " cannot reach the memory of device " +
                                std::to_string(device) + " on this machine; leave it out");
  }
}

void open_to_peers(CUmemPoolHandle_st* pool, int device, const peer_devices& peers) {
  access_table& all = table();
  const std::lock_guard lock(all.mutex);
  open_pool& known = all.pools[pool];
  known.device = device;
  known.follows = peers.which == peer_devices::choice::in_use;
  if (known.follows) return follow(pool, known, all.in_use);
  change_access(pool, known, asked_for(peers, device));
}

void open_view_to_peers(CUmemPoolHandle_st* pool, int device, const peer_devices& peers) {
  check_peers(peers, device);
  set_access(pool, asked_for(peers, device), CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
}

void start_following(peer_follower& memory, int device) {
  access_table& all = table();
  const std::lock_guard lock(all.mutex);
  all.followers.emplace(&memory, device);
  open_to(memory, device, all.in_use);
}

void stop_following(peer_follower& memory) noexcept {
  if (driver_is_gone()) return;
  const std::lock_guard lock(table().mutex);
  table().followers.erase(&memory);
}

std::vector<int> asked_for_peers(const peer_devices& peers, int device) {
  const device_set wanted = asked_for(peers, device);
  std::vector<int> devices;
  for (int each = 0; each < max_devices; ++each) {
    if (wanted.test(bit(each))) devices.push_back(each);
  }
  return devices;
}

void stop_following(CUmemPoolHandle_st* pool) noexcept {
  if (driver_is_gone()) return;
  const std::lock_guard lock(table().mutex);
  const auto found = table().pools.find(pool);
  if (found != table().pools.end()) found->second.follows = false;
}

void forget_pool(CUmemPoolHandle_st* pool) noexcept {
  const std::lock_guard lock(table().mutex);
  table().pools.erase(pool);
}

void open_followers_to(int device) noexcept {
  if (driver_is_gone()) return;
  access_table& all = table();
  const std::lock_guard lock(all.mutex);
  all.in_use.set(bit(device));
  for (auto& [pool, known] : all.pools) {
    if (known.follows) follow(pool, known, all.in_use);
  }
  device_set fresh;
  fresh.set(bit(device));
  for (const auto& [memory, owner] : all.followers) open_to(*memory, owner, fresh);
}

void forget_devices_in_use() noexcept {
  access_table& all = table();
  const std::lock_guard lock(all.mutex);
  all.in_use.reset();
  for (auto& [pool, known] : all.pools) known.open.reset();
  for (const auto& [memory, owner] : all.followers) memory->forget_devices();
}

}  // namespace cenote::inline v1
