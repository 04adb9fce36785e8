#include "cenote/structures/address_map.hpp"

#include <bit>
#include <stdexcept>

namespace cenote {
namespace {

constexpr std::size_t initial_slots = 64;
constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // Fibonacci hashing: Knuth, vol. 3, 6.4

}  // namespace

address_map::address_map() : table_(initial_slots) {}

std::size_t address_map::home(const void* address) const noexcept {
  const auto key = reinterpret_cast<std::uintptr_t>(address);
  return static_cast<std::size_t>((key * golden_ratio) >> (64 - std::countr_zero(table_.size())));
}

std::size_t address_map::slot_of(const void* address) const noexcept {
  std::size_t slot = home(address);
  while (table_[slot].address != nullptr && table_[slot].address != address) slot = next(slot);
  return slot;
}

void address_map::insert(const void* address, std::uint32_t value) {
  reserve_one();
  table_[slot_of(address)] = {address, value};
  ++size_;
}

std::uint32_t address_map::find(const void* address) const noexcept { return table_[slot_of(address)].value; }

std::uint32_t address_map::erase(const void* address) noexcept {
  std::size_t hole = slot_of(address);
  if (table_[hole].address == nullptr) return none;
  const std::uint32_t value = table_[hole].value;
  // A follower may close the hole unless its home lies cyclically in (hole, follower]: then it would become
  // unreachable.
  for (std::size_t follower = next(hole); table_[follower].address != nullptr; follower = next(follower)) {
    const std::size_t distance_home = (follower - home(table_[follower].address)) & (table_.size() - 1);
    const std::size_t distance_hole = (follower - hole) & (table_.size() - 1);
    if (distance_home < distance_hole) continue;
    table_[hole] = table_[follower];
    hole = follower;
  }
  table_[hole] = {};
  --size_;
  return value;
}

void address_map::grow() {
  std::vector<entry> old(2 * table_.size());
  old.swap(table_);
  for (const entry& e : old) {
    if (e.address != nullptr) table_[slot_of(e.address)] = e;
  }
}

void address_map::check() const {
  std::size_t present = 0;
  for (std::size_t slot = 0; slot < table_.size(); ++slot) {
    if (table_[slot].address == nullptr) continue;
    ++present;
    if (slot_of(table_[slot].address) != slot) throw std::logic_error("address_map I1: an entry cannot be reached");
  }
  if (present != size_ || 2 * size_ > table_.size()) throw std::logic_error("address_map I2: the count is wrong");
}

}  // namespace cenote
