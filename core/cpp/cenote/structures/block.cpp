#include "cenote/structures/block.hpp"

#include <algorithm>
#include <new>
#include <type_traits>

namespace cenote::inline v1 {

static_assert(std::is_trivially_copyable_v<block>, "a table of bytes holds blocks without a constructor call");

block_index block_table::create(const block& initial, std::size_t taker) noexcept {
  stock& from = stocks_[stock_for(taker)];
  const block_index index = from.first;
  from.first = at(index)->next;
  --vacant_;
  *at(index) = initial;
  return index;
}

void block_table::destroy(block_index index) noexcept {
  *at(index) = {};
  put(stock_of_run_[index / run], index);
}

void block_table::put(std::size_t stock, block_index vacant) noexcept {
  at(vacant)->next = stocks_[stock].first;
  stocks_[stock].first = vacant;
  ++vacant_;
}

/// The taker's stock, with a new run if it is empty; where there is none left, another one.
std::size_t block_table::stock_for(std::size_t taker) noexcept {
  const std::size_t own = taker % stock_count;
  if (stocks_[own].first != no_block) return own;
  if (used_ != capacity_) {
    stock_of_run_.push_back(static_cast<std::uint8_t>(own));  // grow() has made room
    used_ += run;
    for (std::size_t place = 1; place <= run; ++place) put(own, static_cast<block_index>(used_ - place));
    return own;
  }
  const auto has_any = [](const stock& each) { return each.first != no_block; };
  return static_cast<std::size_t>(std::find_if(stocks_.begin(), stocks_.end(), has_any) - stocks_.begin());
}

void block_table::grow() {
  if (segments_used_ == segment_count) throw std::bad_alloc();
  const std::size_t blocks = std::size_t{1} << (first_segment_bits + segments_used_);
  stock_of_run_.reserve((capacity_ + blocks) / run);
  segments_[segments_used_] = make_host_table<block>(blocks);
  ++segments_used_;
  capacity_ += blocks;
}

}  // namespace cenote::inline v1
