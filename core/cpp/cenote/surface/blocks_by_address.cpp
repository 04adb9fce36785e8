#include "cenote/surface/blocks_by_address.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/surface/block_offer.hpp"
#include "cenote/surface/opened_memory_resource.hpp"
#include "cenote/surface/registry.hpp"

namespace cenote::inline v1 {
namespace {

struct offered_block {
  std::shared_ptr<block_offer> offer;  // null once it is withdrawn
  std::shared_ptr<void> users;         // held by those that have it, and here
};

struct known_blocks {
  driver_mutex mutex;  // guards all below
  std::map<const void*, offered_block> offered;
  std::map<void*, std::shared_ptr<opened_memory_resource>> opened;
};

known_blocks& blocks() {
  static immortal<known_blocks> all;
  return *all;
}

/// Null where it is not offered with these bytes.
std::shared_ptr<block_offer> find_offer(const void* address, std::size_t bytes) {
  const std::lock_guard lock(blocks().mutex);
  const auto found = blocks().offered.find(address);
  if (found == blocks().offered.end() || !found->second.offer) return nullptr;
  return found->second.offer->bytes() == bytes ? found->second.offer : nullptr;
}

}  // namespace

std::string share_address(int device, const void* address, std::size_t bytes, stream_ref stream) {
  if (address == nullptr) throw std::invalid_argument("the address of a block to share must not be null");
  if (const auto known = find_offer(address, bytes)) {
    known->share_again(stream);
    return known->handle();
  }
  auto users = std::make_shared<bool>(true);
  auto offer = std::make_shared<block_offer>(address, bytes, stream, get_per_device_resource(device),
                                             [alive = std::weak_ptr<void>(users)] { return alive.lock(); });
  const std::string handle = offer->handle();
  offered_block replaced;  // ends after the lock
  const std::lock_guard lock(blocks().mutex);
  offered_block& place = blocks().offered[address];
  replaced = std::exchange(place, {std::move(offer), std::move(users)});
  return handle;
}

bool unshare_address(const void* address) {
  const auto find = [address] {
    const auto found = blocks().offered.find(address);
    if (found == blocks().offered.end()) throw std::invalid_argument("the block is not shared");
    return found;
  };
  std::shared_ptr<block_offer> withdrawn;
  {
    const std::lock_guard lock(blocks().mutex);
    withdrawn = std::move(find()->second.offer);
  }
  withdrawn.reset();  // from here on there are no more users than now
  const std::lock_guard lock(blocks().mutex);
  const auto found = find();
  if (found->second.users.use_count() > 1) return true;
  blocks().offered.erase(found);
  return false;
}

opened_block open_block(const std::string& handle, stream_ref stream) {
  auto resource = std::make_shared<opened_memory_resource>(handle);
  const opened_block block{resource->allocate(stream, resource->bytes()), resource->bytes(), resource->device()};
  const std::lock_guard lock(blocks().mutex);
  blocks().opened.emplace(block.address, std::move(resource));
  return block;
}

void close_block(void* address, stream_ref stream) {
  std::shared_ptr<opened_memory_resource> closed;
  {
    const std::lock_guard lock(blocks().mutex);
    const auto found = blocks().opened.find(address);
    if (found == blocks().opened.end()) throw std::invalid_argument("no block of another process is open there");
    closed = std::move(found->second);
    blocks().opened.erase(found);
  }
  closed->deallocate(stream, address, closed->bytes());
}

}  // namespace cenote::inline v1
