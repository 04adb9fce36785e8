#include "cenote/pool/page_pause.hpp"

#include <algorithm>
#include <bit>
#include <iterator>
#include <string>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/reports.hpp"

namespace cenote::inline v1::pool {
namespace {

/// A gap that is copied with what lies around it, rather than making two copies.
constexpr std::size_t gap_worth_copying = 64 * KiB;

/// Pages are unmapped behind the copies in groups of so many bytes: an event for each.
constexpr std::size_t group_bytes = 256 * MiB;

/// Before pages go that copies may still use. Where the driver refuses to wait, twice, it has failed for good.
void wait_before_giving_up(const cuda_stream& stream) noexcept {
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      return stream.synchronize();
    } catch (const std::exception& error) {
      report_once("copies of a pause could not be waited for: ", error.what());
    }
  }
}

}  // namespace

void page_pause::hide(mapped_pages& pages, std::unique_ptr<parking> where) {
  std::vector<parked_page> leaving = look_through();
  const cuda_stream stream(device(), cuda_stream::kind::non_blocking);
  addresses_.emplace(pages.base(), pages.range_bytes());
  try {
    copy_out_and_unmap(leaving, pages, *where, stream);
  } catch (...) {
    where->give_up_saving();
    wait_before_giving_up(stream);
    map_again(leaving, pages);
    if (leaving.empty()) {
      addresses_.reset();
      throw;
    }
    be_paused(std::move(leaving), std::move(where));
    throw;
  }
  be_paused(std::move(leaving), std::move(where));
}

void page_pause::release(mapped_pages& pages) noexcept {
  for (parked_page& each : parked_) {
    pages.forget_hidden(each.at.bytes);
    each.memory = nullptr;
    bytes_.fetch_add(each.at.bytes, std::memory_order_relaxed);
  }
}

/// All pages of the pool, in order of address, and what they hold.
auto page_pause::look_through() const -> std::vector<parked_page> {
  std::vector<parked_page> found;
  const shared_heap::section here(heap_);
  for (const page& each : here->range().pages().all()) found.push_back({each, {}});
  auto place = found.begin();
  std::size_t offset = 0;
  here->for_each_block([&](const block& b) {
    if (!here->has_contents(b)) return;
    for (std::byte *at = b.address, *const end = b.address + b.bytes(); at != end;) {
      while (place->at.address + place->at.bytes <= at) ++place;
      std::byte* const part_end = std::min(end, place->at.address + place->at.bytes);
      std::vector<extent>& contents = place->contents;
      if (!contents.empty()) {
        extent& last = contents.back();
        std::byte* const last_end = last.at + last.bytes;
        if (static_cast<std::size_t>(at - last_end) <= gap_worth_copying) {
          const auto more = static_cast<std::size_t>(part_end - last_end);
          last.bytes += more;
          offset += more;
          at = part_end;
          continue;
        }
      }
      const auto bytes = static_cast<std::size_t>(part_end - at);
      contents.push_back({at, bytes, offset});
      offset += bytes;
      at = part_end;
    }
  });
  return found;
}

void page_pause::copy_out_and_unmap(std::vector<parked_page>& leaving, mapped_pages& pages, parking& where,
                                    stream_ref stream) {
  std::size_t all = 0;
  for (const parked_page& each : leaving) {
    for (const extent& part : each.contents) all += part.bytes;
  }
  where.make_room(all);
  struct group {
    std::size_t end;  // of its pages
    std::shared_ptr<event> copied;
  };
  std::vector<group> groups;
  std::size_t first = 0;  // of the groups that may still be mapped
  std::size_t unmapped = 0;
  const auto unmap_copied = [&](bool wait) {
    for (; first < groups.size() && (wait || groups[first].copied->is_complete()); ++first) {
      groups[first].copied->synchronize();
      for (; unmapped < groups[first].end; ++unmapped) leaving[unmapped].memory = pages.hide(leaving[unmapped].at);
    }
  };
  std::size_t queued = 0;
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    for (const extent& part : leaving[i].contents) where.save(part.offset, part.at, part.bytes, stream);
    queued += leaving[i].at.bytes;
    const bool is_last = i + 1 == leaving.size();
    if (is_last) where.end_saving(stream);
    if (!is_last && queued < group_bytes) continue;
    groups.push_back({i + 1, event::record(stream, device())});
    queued = 0;
    unmap_copied(is_last);
  }
}

/// Leaves those that could not be mapped again.
void page_pause::map_again(std::vector<parked_page>& left, mapped_pages& pages) noexcept {
  std::erase_if(left, [&](parked_page& each) {
    if (each.memory == nullptr) return true;
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        if (pages.show(each.memory, each.at.address)) return true;
      } catch (const std::exception& error) {
        report_once("a pool stays paused, as a page could not be mapped again: ", error.what());
      }
    }
    return false;
  });
}

void page_pause::be_paused(std::vector<parked_page> parked, std::unique_ptr<parking> where) noexcept {
  parked_ = std::move(parked);
  where_ = std::move(where);
  is_paused_.store(true, std::memory_order_release);
}

bool page_pause::read(std::byte* to, const std::byte* from, std::size_t bytes) const {
  const auto begins_behind =
      std::ranges::upper_bound(parked_, from, {}, [](const parked_page& each) { return each.at.address; });
  if (begins_behind == parked_.begin()) return bytes == 0;
  for (auto place = std::prev(begins_behind); bytes != 0; ++place) {
    if (place == parked_.end() || place->memory != nullptr) return false;
    for (const extent& part : place->contents) {
      if (bytes == 0 || from < part.at) break;
      if (from >= part.at + part.bytes) continue;
      const auto skipped = static_cast<std::size_t>(from - part.at);
      const std::size_t count = std::min(bytes, part.bytes - skipped);
      if (!where_->read(part.offset + skipped, to, count)) return false;
      from += count;
      to += count;
      bytes -= count;
    }
    if (bytes != 0 && from != place->at.address + place->at.bytes) return false;
  }
  return true;
}

void page_pause::resume(mapped_pages& pages, const std::function<std::size_t(std::size_t)>& make_room) {
  drop_free_pages(pages);
  map_kept_memory(pages);
  merge_pages();
  std::size_t brought = 0;
  std::size_t brought_bytes = 0;
  const cuda_stream stream(device(), cuda_stream::kind::non_blocking);
  const auto bring = [&](const page& wanted) {
    return pages.bring({wanted, nullptr}, stream) ||
           (make_room(bytes() - brought_bytes) != 0 && pages.bring({wanted, nullptr}, stream));
  };
  try {
    for (const parked_page& each : parked_) {
      if (!each.is_mapped) {
        if (!bring(each.at)) refuse(brought_bytes);
        brought_bytes += each.at.bytes;
      }
      ++brought;
      copy_back(each, stream);
    }
    stream.synchronize();
  } catch (...) {
    wait_before_giving_up(stream);
    take_back(brought, pages);
    where_->restart_loading();
    throw;
  }
  parked_.clear();
  where_ = nullptr;
  addresses_.reset();
  bytes_.store(0, std::memory_order_relaxed);
  is_paused_.store(false, std::memory_order_release);
}

/// Pages that were freed meanwhile go to all streams, as no work can have used them. Those still mapped are retired.
void page_pause::drop_free_pages(mapped_pages& pages) {
  const shared_heap::section here(heap_);
  pages.reserve_retired(here->range().pages().all().size());  // nothing below throws once pages are taken out
  here->make_ready(here->claims_upon_all());
  for (const page& gone : here->take_ready_pages_out(max_allocation)) {
    const auto place =
        std::ranges::lower_bound(parked_, gone.address, {}, [](const parked_page& each) { return each.at.address; });
    if (place == parked_.end() || place->at.address != gone.address) {
      pages.retire(gone, nullptr);
      continue;
    }
    if (place->is_mapped) {
      pages.retire(gone, nullptr);
    } else {
      if (place->memory == nullptr) {
        bytes_.fetch_sub(gone.bytes, std::memory_order_relaxed);
      } else {
        pages.forget_hidden(gone.bytes);
      }
      here->range().was_unmapped(gone);
    }
    parked_.erase(place);
  }
}

/// Where pausing is taken back before memory was released, or had failed, and mapping again as well: then all parked
/// pages have their memory.
void page_pause::map_kept_memory(mapped_pages& pages) {
  while (!parked_.empty() && parked_.back().memory != nullptr) {
    if (!pages.show(parked_.back().memory, parked_.back().at.address)) refuse(0);
    parked_.pop_back();
  }
}

/// Has pages come again as larger ones.
void page_pause::merge_pages() {
  const std::size_t largest = std::clamp(std::bit_ceil(bytes() / mapped_pages::pages_of_a_paused_pool),
                                         page_map::slot_bytes, page_map::max_page_bytes);
  const shared_heap::section here(heap_);
  std::vector<parked_page> fewer;
  fewer.reserve(parked_.size());
  for (std::size_t first = 0; first < parked_.size();) {
    const std::size_t end = end_of_large_page(first, largest, here->range().pages().base());
    fewer.push_back(merged(first, end));
    first = end;
  }
  for (const parked_page& each : fewer) here->range().merge(each.at);
  parked_ = std::move(fewer);
}

/// Behind the last of the pages that tile the largest page which may begin where the first one does.
std::size_t page_pause::end_of_large_page(std::size_t first, std::size_t largest,
                                          const std::byte* base) const noexcept {
  if (parked_[first].is_mapped) return first + 1;
  std::byte* const begin = parked_[first].at.address;
  for (std::size_t bytes = largest; bytes > parked_[first].at.bytes; bytes /= 2) {
    if (static_cast<std::size_t>(begin - base) % bytes != 0) continue;
    std::size_t end = first;
    std::byte* at = begin;
    for (; end < parked_.size() && at < begin + bytes && parked_[end].at.address == at && !parked_[end].is_mapped;
         ++end) {
      at += parked_[end].at.bytes;
    }
    if (at == begin + bytes) return end;
  }
  return first + 1;
}

/// The pages from `first` to `end` as one. What lies together, and is kept together, is one piece.
auto page_pause::merged(std::size_t first, std::size_t end) const -> parked_page {
  parked_page whole = parked_[first];
  for (std::size_t i = first + 1; i < end; ++i) {
    whole.at.bytes += parked_[i].at.bytes;
    for (const extent& part : parked_[i].contents) {
      extent* const last = whole.contents.empty() ? nullptr : &whole.contents.back();
      if (last != nullptr && last->at + last->bytes == part.at && last->offset + last->bytes == part.offset) {
        last->bytes += part.bytes;
      } else {
        whole.contents.push_back(part);
      }
    }
  }
  return whole;
}

void page_pause::copy_back(const parked_page& each, stream_ref stream) {
  for (const extent& part : each.contents) where_->load(part.offset, part.at, part.bytes, stream);
}

/// Unmaps the first pages, and gives their memory back.
void page_pause::take_back(std::size_t brought, mapped_pages& pages) noexcept {
  for (std::size_t i = 0; i < brought; ++i) {
    parked_page& each = parked_[i];
    const bool was_mapped = std::exchange(each.is_mapped, true);
    for (int attempt = 0; attempt < 2 && each.is_mapped; ++attempt) {
      try {
        static_cast<void>(pages.hide(each.at));
        pages.forget_hidden(each.at.bytes);
        each.is_mapped = false;
      } catch (const std::exception& error) {
        report_once("a page that a pool had before it failed to be resumed stays: ", error.what());
      }
    }
    if (each.is_mapped && !was_mapped) bytes_.fetch_sub(each.at.bytes, std::memory_order_relaxed);
    if (!each.is_mapped && was_mapped) bytes_.fetch_add(each.at.bytes, std::memory_order_relaxed);
  }
}

void page_pause::refuse(std::size_t brought) const {
  const std::size_t missing = bytes() - brought;
  shortage known;
  known.device = device();
  known.resource = "the device, to resume what is paused: " + format_bytes(missing) + " (" + std::to_string(missing) +
                   " bytes) are missing";
  memory_state figures;
  const device_memory memory = device_memory_info(device());
  figures.device_free = memory.free_bytes + brought;
  figures.device_total = memory.total_bytes;
  throw out_of_memory(bytes(), figures, std::move(known));
}

}  // namespace cenote::inline v1::pool
