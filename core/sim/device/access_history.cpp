#include "sim/device/access_history.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace cenote::sim {
namespace {

bool has_ended(const memory_access& access) { return access.done.reached(); }

bool is_ordered(const memory_access& earlier, const memory_access& later) {
  return comes_before(earlier.done, later.done);
}

}  // namespace

void access_history::touched_range::forget_what_is_done() {
  if (write && has_ended(*write)) {
    write.reset();
  }
  std::erase_if(reads, has_ended);
}

bool access_history::touched_range::is_done() const {
  return (!write || has_ended(*write)) && std::all_of(reads.begin(), reads.end(), has_ended);
}

std::optional<memory_access> access_history::touched_range::unordered_with(const memory_access& access) const {
  if (write && !is_ordered(*write, access)) {
    return write;
  }
  if (access.writes) {
    for (const memory_access& read : reads) {
      if (!is_ordered(read, access)) {
        return read;
      }
    }
  }
  return std::nullopt;
}

void access_history::touched_range::add_read(const memory_access& access) {
  std::erase_if(reads, [&](const memory_access& read) { return read.done.queue == access.done.queue; });
  reads.push_back(access);
}

std::optional<memory_access> access_history::note(std::size_t offset, std::size_t bytes, std::uintptr_t mapping,
                                                  const memory_access& access) {
  by_mapping_[mapping].insert_or_assign(access.done.queue->id, access);
  const std::size_t end = offset + bytes;
  split_at(offset);
  split_at(end);
  std::optional<memory_access> unordered;
  for (auto at = ranges_.lower_bound(offset); at != ranges_.end() && at->first < end; ++at) {
    at->second.forget_what_is_done();
    if (!unordered) {
      unordered = at->second.unordered_with(access);
    }
  }
  if (access.writes) {
    write(offset, end, access);
  } else {
    read(offset, end, access);
  }
  if (ranges_.size() >= sweep_at_) {
    drop_what_is_done();
  }
  return unordered;
}

std::optional<memory_access> access_history::end_mapping(std::uintptr_t mapping) {
  const auto ended = by_mapping_.extract(mapping);
  if (ended.empty()) {
    return std::nullopt;
  }
  for (const auto& [queue, access] : ended.mapped()) {
    if (!has_ended(access)) {
      return access;
    }
  }
  return std::nullopt;
}

void access_history::split_at(std::size_t offset) {
  const auto after = ranges_.upper_bound(offset);
  if (after == ranges_.begin()) {
    return;
  }
  auto& [begin, range] = *std::prev(after);
  if (begin < offset && offset < range.end) {
    ranges_.emplace_hint(after, offset, range);
    range.end = offset;
  }
}

void access_history::write(std::size_t begin, std::size_t end, const memory_access& access) {
  ranges_.erase(ranges_.lower_bound(begin), ranges_.lower_bound(end));
  ranges_.emplace(begin, touched_range{end, access, {}});
}

void access_history::read(std::size_t begin, std::size_t end, const memory_access& access) {
  for (auto at = ranges_.lower_bound(begin); begin < end; ++at) {
    if (at == ranges_.end() || at->first > begin) {  // nobody has touched what lies before it
      const std::size_t until = at == ranges_.end() ? end : std::min(at->first, end);
      at = ranges_.emplace_hint(at, begin, touched_range{until, std::nullopt, {}});
    }
    at->second.add_read(access);
    begin = at->second.end;
  }
}

void access_history::drop_what_is_done() {
  std::erase_if(ranges_, [](const auto& entry) { return entry.second.is_done(); });
  sweep_at_ = std::max(least_before_sweep, 2 * ranges_.size());
}

}  // namespace cenote::sim
