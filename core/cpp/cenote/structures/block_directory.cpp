#include "cenote/structures/block_directory.hpp"

#include <bit>
#include <stdexcept>

namespace cenote::inline v1 {

block_directory::block_directory(const block_table& blocks) : blocks_(blocks) {
  add_table(first_places);
  current_.store(tables_.back().get(), std::memory_order_release);
}

void block_directory::add_table(std::size_t places) {
  tables_.reserve(tables_.size() + 1);
  const auto bits = static_cast<unsigned>(std::bit_width(places)) - 1;
  tables_.push_back(std::make_unique<table>(table{make_host_table<std::uint64_t>(places), places - 1, 64 - bits}));
  places_ = places;
}

void block_directory::put(const table& into, std::uint64_t word) noexcept {
  std::size_t place = into.home_of(tag_of(word));
  while (into.read(place) != vacant) place = into.after(place);
  into.write(place, word);
}

void block_directory::insert(block_index block) noexcept {
  put(*tables_.back(), std::uint64_t{block + 1} << 32 | tag_of(blocks_[block].address));
  ++size_;
}

void block_directory::remove(block_index block) noexcept {
  const table& in = *tables_.back();
  std::size_t hole = in.home_of(tag_of(blocks_[block].address));
  while (block_of(in.read(hole)) != block) hole = in.after(hole);
  // An entry further on may lie in the hole unless its home is between the two: then it could not be found there.
  for (std::size_t place = in.after(hole);; place = in.after(place)) {
    const std::uint64_t word = in.read(place);
    if (word == vacant) break;
    const std::size_t home = in.home_of(tag_of(word));
    if (((place - home) & in.mask) < ((place - hole) & in.mask)) continue;
    in.write(hole, word);
    hole = place;
  }
  in.write(hole, vacant);
  --size_;
}

void block_directory::grow() {
  const table& old = *tables_.back();
  const std::size_t old_places = places_;
  add_table(2 * old_places);
  for (std::size_t place = 0; place < old_places; ++place) {
    if (const std::uint64_t word = old.read(place); word != vacant) put(*tables_.back(), word);
  }
  current_.store(tables_.back().get(), std::memory_order_release);
}

void block_directory::check() const {
  const table& in = *tables_.back();
  std::size_t entries = 0;
  for (std::size_t place = 0; place < places_; ++place) {
    const std::uint64_t word = in.read(place);
    if (word == vacant) continue;
    ++entries;
    if (find(blocks_[block_of(word)].address) != block_of(word)) {
      throw std::logic_error("block_directory I1: an entry cannot be found");
    }
  }
  if (entries != size_ || entries > most_entries(places_)) {
    throw std::logic_error("block_directory I2: the number of entries is wrong");
  }
}

}  // namespace cenote::inline v1
