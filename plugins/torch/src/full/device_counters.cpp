#include "device_counters.hpp"

#include <algorithm>

namespace cenote::torch {
namespace {

using stat = c10::CachingAllocator::Stat;
using stat_array = c10::CachingAllocator::StatArray;

void set_now(stat& figure, std::size_t now) {
  const auto wanted = static_cast<std::int64_t>(now);
  if (wanted > figure.current) figure.increase(static_cast<std::size_t>(wanted - figure.current));
  if (wanted < figure.current) figure.decrease(static_cast<std::size_t>(figure.current - wanted));
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

void device_counters::set(stat_array& figure, std::size_t small_now, std::size_t large_now) {
  set_now(figure[small_kind], small_now);
  set_now(figure[large_kind], large_now);
  set_now(figure[all_kinds], small_now + large_now);
}

void device_counters::set_reserved(const reserved_figures& now) {
  const auto before = figures_.reserved_bytes[all_kinds].current;
  set(figures_.reserved_bytes, now.small, now.large);
  if (figures_.reserved_bytes[all_kinds].current > before) ++figures_.num_device_alloc;
  if (figures_.reserved_bytes[all_kinds].current < before) ++figures_.num_device_free;
  set(figures_.segment, now.segments_small, now.segments_large);
  set(figures_.inactive_split, now.split_blocks_small, now.split_blocks_large);
  set(figures_.inactive_split_bytes, now.split_bytes_small, now.split_bytes_large);
}

void device_counters::reset_accumulated() {
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
  for_each_array(figures_, [](stat_array& each) {
    for (stat& one : each) one.reset_peak();
  });
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
