#include "sim/device/physical_piece.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "sim/device/device.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/handles.hpp"
#include "sim/ground/violations.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/memory/physical_memory.hpp"

namespace cenote::sim {
namespace {

/// The last page of a piece's own file.
struct piece_label {
  char magic[24] = "cenote_sim piece 1";
  std::size_t bytes = 0;
  char card[64] = {};  ///< its UUID, as text
};

piece_label label_of(const simulated_device& device, std::size_t bytes) {
  piece_label label;
  label.bytes = bytes;
  device.card.uuid.copy(label.card, sizeof label.card - 1);
  return label;
}

}  // namespace

handle_table<CUmemGenericAllocationHandle, physical_piece>& live_pieces() {
  static auto* const pieces = new handle_table<CUmemGenericAllocationHandle, physical_piece>("memory handle", 0x55);
  return *pieces;
}

physical_piece::physical_piece(simulated_device& device, std::size_t bytes, bool exportable)
    : device(device), bytes(bytes), exportable(exportable), charged_(true), has_own_file_(false) {
  require(bytes <= device.free_bytes(), CUDA_ERROR_OUT_OF_MEMORY);
  offset = memory_of_cards().take(bytes);
  file = memory_of_cards().file();
  device.charge(bytes);
  file->fill(offset, addresses().poison_everything ? bytes : address_space::poisoned_bytes,
             address_space::fresh_poison);
}

physical_piece::physical_piece(simulated_device& device, std::size_t bytes, std::shared_ptr<const backing_file> file)
    : device(device), bytes(bytes), exportable(true), file(std::move(file)), charged_(false), has_own_file_(true) {}

std::shared_ptr<physical_piece> physical_piece::import(int descriptor) {
  auto file = backing_file::open(descriptor);
  const std::size_t file_bytes = file->bytes();
  piece_label label;
  require(file_bytes > page_bytes && file->read(file_bytes - page_bytes, &label, sizeof label));
  require(std::memcmp(label.magic, piece_label{}.magic, sizeof label.magic) == 0 &&
          label.bytes == file_bytes - page_bytes);
  label.card[sizeof label.card - 1] = 0;
  const auto of = std::find_if(devices().begin(), devices().end(),
                               [&](const simulated_device* each) { return each->card.uuid == label.card; });
  if (of == devices().end()) {
    violations().add("memory of device " + std::string(label.card) + ", which this process does not see, is imported");
    fail(CUDA_ERROR_INVALID_DEVICE);
  }
  return std::shared_ptr<physical_piece>(new physical_piece(**of, label.bytes, std::move(file)));
}

int physical_piece::export_file() {
  require(exportable);
  if (!has_own_file_) {
    move_to_own_file();
  }
  return file->new_descriptor();
}

/// Nothing touches the memory meanwhile, because all work on it runs under the driver's lock.
void physical_piece::move_to_own_file() {
  const auto own = backing_file::make(bytes + page_bytes);
  std::vector<unsigned char> part(std::min(bytes, physical_memory::granularity));
  for (std::size_t done = 0; done < bytes; done += part.size()) {
    require(file->read(offset + done, part.data(), part.size()));
    own->write(done, part.data(), part.size());
  }
  const piece_label label = label_of(device, bytes);
  own->write(bytes, &label, sizeof label);
  for (const auto& [base, block] : live_blocks().all()) {
    if (block->physical.get() == this) {
      own->show(base, bytes, 0, block->open_to.any());
    }
  }
  memory_of_cards().give_back(offset, bytes);
  file = own;
  offset = 0;
  has_own_file_ = true;
}

physical_piece::~physical_piece() {
  if (!has_own_file_) {
    memory_of_cards().give_back(offset, bytes);
  }
  if (charged_) {
    device.discharge(bytes);
  }
}

}  // namespace cenote::sim
