#include "device_counters.hpp"

#include <algorithm>

namespace cenote::torch {
namespace {

using stat = c10::CachingAllocator::Stat;
using stat_array = c10::CachingAllocator::StatArray;

constexpr std::size_t all = 0;
constexpr std::size_t small_kind = 1;
constexpr std::size_t large_kind = 2;

/// Inlined, as an allocation and a free need ten of these.
[[gnu::always_inline]] inline void increase(stat_array& figures, bool is_large, std::size_t amount) {
  figures[all].increase(amount);
  figures[is_large ? large_kind : small_kind].increase(amount);
}

[[gnu::always_inline]] inline void decrease(stat_array& figures, bool is_large, std::size_t amount) {
  figures[all].decrease(amount);
  figures[is_large ? large_kind : small_kind].decrease(amount);
}

void set(stat& figure, std::size_t now) {
  const auto wanted = static_cast<std::int64_t>(now);
  if (wanted > figure.current) figure.increase(static_cast<std::size_t>(wanted - figure.current));
  if (wanted < figure.current) figure.decrease(static_cast<std::size_t>(figure.current - wanted));
}

void set(stat_array& figures, std::size_t small_now, std::size_t large_now) {
  set(figures[small_kind], small_now);
  set(figures[large_kind], large_now);
  set(figures[all], small_now + large_now);
}

template <class Each>
void for_each_array(device_figures& figures, Each&& each) {
  for (stat_array* const one :
       {&figures.allocation, &figures.segment, &figures.active, &figures.inactive_split, &figures.allocated_bytes,
        &figures.reserved_bytes, &figures.active_bytes, &figures.inactive_split_bytes, &figures.requested_bytes}) {
    each(*one);
  }
}

}  // namespace

std::size_t device_counters::add(const live_block& block) {
  const std::lock_guard lock(lock_);
  increase(figures_.allocation, block.is_large, 1);
  increase(figures_.active, block.is_large, 1);
  increase(figures_.allocated_bytes, block.is_large, block.bytes);
  increase(figures_.active_bytes, block.is_large, block.bytes);
  increase(figures_.requested_bytes, block.is_large, block.requested);
  return static_cast<std::size_t>(figures_.allocated_bytes[all].current);
}

std::size_t device_counters::remove(const live_block& block) {
  const std::lock_guard lock(lock_);
  remove_active_locked(block);
  return remove_allocated_locked(block);
}

std::size_t device_counters::remove_allocated(const live_block& block) {
  const std::lock_guard lock(lock_);
  return remove_allocated_locked(block);
}

void device_counters::remove_active(const live_block& block) {
  const std::lock_guard lock(lock_);
  remove_active_locked(block);
}

std::size_t device_counters::remove_allocated_locked(const live_block& block) {
  decrease(figures_.allocation, block.is_large, 1);
  decrease(figures_.allocated_bytes, block.is_large, block.bytes);
  decrease(figures_.requested_bytes, block.is_large, block.requested);
  return static_cast<std::size_t>(figures_.allocated_bytes[all].current);
}

void device_counters::remove_active_locked(const live_block& block) {
  decrease(figures_.active, block.is_large, 1);
  decrease(figures_.active_bytes, block.is_large, block.bytes);
}

void device_counters::set_reserved(const reserved_figures& now) {
  const std::lock_guard lock(lock_);
  const auto before = figures_.reserved_bytes[all].current;
  set(figures_.reserved_bytes, now.small, now.large);
  if (figures_.reserved_bytes[all].current > before) ++figures_.num_device_alloc;
  if (figures_.reserved_bytes[all].current < before) ++figures_.num_device_free;
  set(figures_.segment, now.segments_small, now.segments_large);
  set(figures_.inactive_split, now.split_blocks_small, now.split_blocks_large);
  set(figures_.inactive_split_bytes, now.split_bytes_small, now.split_bytes_large);
}

void device_counters::add_retry() {
  const std::lock_guard lock(lock_);
  ++figures_.num_alloc_retries;
}

void device_counters::add_out_of_memory() {
  const std::lock_guard lock(lock_);
  ++figures_.num_ooms;
}

void device_counters::reset_accumulated() {
  const std::lock_guard lock(lock_);
  for_each_array(figures_, [](stat_array& each) {
    for (stat& one : each) one.reset_accumulated();
  });
  figures_.num_alloc_retries = 0;
  figures_.num_ooms = 0;
  figures_.num_sync_all_streams = 0;
  figures_.num_device_alloc = 0;
  figures_.num_device_free = 0;
}

void device_counters::reset_peak() {
  const std::lock_guard lock(lock_);
  for_each_array(figures_, [](stat_array& each) {
    for (stat& one : each) one.reset_peak();
  });
}

device_figures device_counters::read() const {
  const std::lock_guard lock(lock_);
  return figures_;
}

std::size_t device_counters::allocated_bytes() const {
  const std::lock_guard lock(lock_);
  return static_cast<std::size_t>(figures_.allocated_bytes[all].current);
}

void add_figures(device_figures& ours, const device_figures& others) {
  device_figures theirs = others;
  std::vector<stat_array*> added;
  for_each_array(theirs, [&](stat_array& each) { added.push_back(&each); });
  std::size_t index = 0;
  for_each_array(ours, [&](stat_array& each) {
    const stat_array& other = *added[index++];
    for (std::size_t kind = 0; kind < each.size(); ++kind) {
      each[kind].peak = std::max(other[kind].peak, each[kind].peak + other[kind].current);
      each[kind].current += other[kind].current;
      each[kind].allocated += other[kind].allocated;
      each[kind].freed += other[kind].freed;
    }
  });
  ours.num_alloc_retries += theirs.num_alloc_retries;
  ours.num_ooms += theirs.num_ooms;
  ours.num_sync_all_streams += theirs.num_sync_all_streams;
  ours.num_device_alloc += theirs.num_device_alloc;
  ours.num_device_free += theirs.num_device_free;
  ours.max_split_size = theirs.max_split_size;
}

}  // namespace cenote::torch
