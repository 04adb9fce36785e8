#include "sim/pool/pool_file.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "sim/device/device.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/key.hpp"
#include "sim/memory/address_space.hpp"

namespace cenote::sim {
namespace {

constexpr std::size_t most_bytes = std::size_t{1} << 46;  // more than a card has

struct pool_label {
  char magic[24] = "cenote_sim pool 1";
  std::uint64_t key = 0;
  char card[64] = {};  ///< its UUID, as text
};

struct exported_pointer {
  char magic[24] = "cenote_sim pointer 1";
  std::uint64_t key;
  std::uintptr_t offset;
  std::size_t bytes;
};
static_assert(sizeof(exported_pointer) <= sizeof(CUmemPoolPtrExportData));

}  // namespace

std::shared_ptr<pool_file> pool_file::make(const simulated_device& device) {
  const std::shared_ptr<pool_file> made(new pool_file(backing_file::make(most_bytes + page_bytes)));
  made->key_ = new_key();
  made->card_ = device.card.uuid;
  made->free_.insert(0, most_bytes);
  pool_label label;
  label.key = made->key_;
  made->card_.copy(label.card, sizeof label.card - 1);
  made->file_->write(most_bytes, &label, sizeof label);
  return made;
}

std::shared_ptr<pool_file> pool_file::open(int descriptor) {
  const std::shared_ptr<pool_file> opened(new pool_file(backing_file::open(descriptor)));
  pool_label label;
  require(opened->file_->read(most_bytes, &label, sizeof label) &&
          std::memcmp(label.magic, pool_label{}.magic, sizeof label.magic) == 0);
  label.card[sizeof label.card - 1] = 0;
  opened->key_ = label.key;
  opened->card_ = label.card;
  opened->device();
  return opened;
}

simulated_device& pool_file::device() const {
  const auto of = std::find_if(devices().begin(), devices().end(),
                               [&](const simulated_device* each) { return each->card.uuid == card_; });
  require(of != devices().end(), CUDA_ERROR_INVALID_DEVICE);
  return **of;
}

void pool_file::show_segment(std::uintptr_t base, std::size_t bytes) {
  const auto offset = free_.take(bytes);
  require(offset.has_value(), CUDA_ERROR_OUT_OF_MEMORY);
  file_->show(base, bytes, *offset, true);
  file_->fill(*offset, addresses().poison_everything ? bytes : address_space::poisoned_bytes,
              address_space::fresh_poison);
  segments_.emplace(base, segment_place{*offset, bytes});
}

void pool_file::hide_segment(std::uintptr_t base, std::size_t bytes) {
  unseal(base, bytes);
  const auto at = segments_.find(base);
  file_->punch(at->second.offset, bytes);
  free_.insert(at->second.offset, bytes);
  segments_.erase(at);
}

CUmemPoolPtrExportData pool_file::export_pointer(std::uintptr_t address, std::size_t bytes) const {
  const auto& [base, place] = *std::prev(segments_.upper_bound(address));
  exported_pointer exported;
  exported.key = key_;
  exported.offset = place.offset + (address - base);
  exported.bytes = bytes;
  CUmemPoolPtrExportData data{};
  std::memcpy(data.reserved, &exported, sizeof exported);
  return data;
}

pool_file::shown_block pool_file::show(const CUmemPoolPtrExportData& data) {
  exported_pointer exported;
  std::memcpy(&exported, data.reserved, sizeof exported);
  require(std::memcmp(exported.magic, exported_pointer{}.magic, sizeof exported.magic) == 0 && exported.key == key_);
  const std::uintptr_t first = exported.offset / page_bytes * page_bytes;
  const std::size_t before = exported.offset - first;
  const std::size_t pages = round_up(before + exported.bytes, page_bytes);
  const std::uintptr_t base = addresses().take_untouched(pages, page_bytes);
  file_->show(base, pages, first, true);
  shown_.emplace(base + before, shown_pages{base, pages});
  return {base + before, exported.bytes};
}

void pool_file::hide(std::uintptr_t address) {
  const auto at = shown_.find(address);
  const auto [base, bytes] = at->second;
  shown_.erase(at);
  unseal(base, bytes);
  addresses().give_back_untouched(base, bytes);
}

void pool_file::hide_all() {
  while (!segments_.empty()) hide_segment(segments_.begin()->first, segments_.begin()->second.bytes);
  for (const auto& [address, pages] : shown_) unseal(pages.base, pages.bytes);
  shown_.clear();
}

}  // namespace cenote::sim
