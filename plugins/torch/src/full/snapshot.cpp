#include "snapshot.hpp"

#include <algorithm>

#include "sizes.hpp"

namespace cenote::torch {
namespace {

block_info spell(const live_block& block) {
  block_info info;
  info.size = block.bytes;
  info.requested_size = block.is_pending ? 0 : block.requested;
  info.allocated = !block.is_pending;
  info.active = true;
  info.context_when_allocated = block.stack;
  return info;
}

block_info gap_of(std::size_t bytes) {
  block_info info;
  info.size = bytes;
  return info;
}

void add(segment_info& segment, block_info block) {
  segment.total_size += block.size;
  if (block.allocated) segment.allocated_size += block.size;
  if (block.active) segment.active_size += block.size;
  segment.requested_size += block.requested_size;
  segment.blocks.push_back(std::move(block));
}

segment_info make_segment(std::uintptr_t address, bool is_large, void* stream, c10::DeviceIndex device) {
  segment_info segment;
  segment.device = device;
  segment.address = address;
  segment.is_large = is_large;
  segment.is_expandable = true;
  segment.stream = static_cast<segment_stream>(stream);
  return segment;
}

std::set<std::size_t> pages_of(const std::vector<placed_block>& blocks) {
  std::set<std::size_t> pages;
  for (const auto& [address, block] : blocks) {
    for (std::size_t page = address / page_bytes * page_bytes; page < address + block.bytes; page += page_bytes) {
      pages.insert(pages.end(), page);
    }
  }
  return pages;
}

/// Appends pieces of one run of pages, cut where the kind changes.
class run_builder {
 public:
  run_builder(std::vector<segment_info>& segments, c10::DeviceIndex device, bool is_whole)
      : segments_(segments), device_(device), is_whole_(is_whole) {}

  void start(std::uintptr_t address) {
    end_ = address;
    is_open_ = false;
  }
  std::uintptr_t end() const { return end_; }

  void add_gap(std::size_t bytes) {
    if (bytes != 0) add_piece(gap_of(bytes), true, nullptr);
  }
  void add_block(const live_block& block) { add_piece(spell(block), block.is_large, block.stream); }

 private:
  void add_piece(block_info piece, bool is_large, void* stream) {
    if (is_whole_) {
      is_large = true;
      stream = nullptr;
    }
    if (!is_open_ || segments_.back().is_large != is_large) {
      segments_.push_back(make_segment(end_, is_large, stream, device_));
      is_open_ = true;
    }
    if (segments_.back().stream == nullptr) segments_.back().stream = static_cast<segment_stream>(stream);
    end_ += piece.size;
    add(segments_.back(), std::move(piece));
  }

  std::vector<segment_info>& segments_;
  c10::DeviceIndex device_;
  bool is_whole_;
  std::uintptr_t end_ = 0;
  bool is_open_ = false;
};

}  // namespace

main_layout lay_out(std::vector<placed_block> blocks, std::size_t held,
                    const std::optional<std::set<std::size_t>>& known) {
  main_layout layout;
  std::sort(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const c10::DeviceIndex device = blocks.empty() ? c10::DeviceIndex{0} : blocks.front().second.device;

  std::set<std::size_t> pages = pages_of(blocks);
  const bool holds_whole_pages = pages.size() * page_bytes <= held;
  for (const std::size_t page : known.value_or(std::set<std::size_t>{})) {
    if (pages.count(page) != 0) continue;
    if ((pages.size() + 1) * page_bytes <= held) {
      pages.insert(page);
    } else {
      layout.unmapped_pages.push_back(page);
    }
  }

  run_builder run(layout.segments, device, known.has_value());
  auto block = blocks.begin();
  if (holds_whole_pages) {
    std::size_t run_end = 0;
    for (const std::size_t page : pages) {
      if (page != run_end || layout.segments.empty()) {
        run.add_gap(run_end - std::min<std::size_t>(run_end, run.end()));
        run.start(page);
      }
      run_end = page + page_bytes;
      for (; block != blocks.end() && block->first < run_end; ++block) {
        run.add_gap(block->first - run.end());
        run.add_block(block->second);
      }
    }
    if (run_end > run.end()) run.add_gap(run_end - run.end());
  } else {
    for (; block != blocks.end(); ++block) {
      if (block->first != run.end()) run.start(block->first);
      run.add_block(block->second);
    }
  }

  std::size_t shown = 0;
  for (const segment_info& each : layout.segments) shown += each.total_size;
  if (held > shown) {
    const std::uintptr_t behind = round_up(run.end() == 0 ? page_bytes : run.end(), page_bytes);
    segment_info rest = make_segment(behind, true, nullptr, device);
    add(rest, gap_of(held - shown));
    layout.segments.push_back(std::move(rest));
  }
  return layout;
}

std::vector<segment_info> lay_out(const private_pool& pool, mempool_id id, c10::DeviceIndex device,
                                  const std::vector<placed_block>& blocks) {
  const auto find = [&](const char* address) -> const live_block* {
    const auto wanted = reinterpret_cast<std::uintptr_t>(address);
    const auto found = std::lower_bound(blocks.begin(), blocks.end(), wanted,
                                        [](const placed_block& each, std::uintptr_t key) { return each.first < key; });
    return found != blocks.end() && found->first == wanted ? &found->second : nullptr;
  };
  std::vector<segment_info> segments;
  for (const auto& [address, segment] : pool.segments()) {
    segment_info info =
        make_segment(reinterpret_cast<std::uintptr_t>(address), segment.is_large, segment.stream, device);
    info.is_expandable = false;
    info.owner_private_pool_id = id;
    for (auto block = pool.blocks().find(address); block != pool.blocks().end() && block->second.segment == address;
         ++block) {
      const live_block* const live = find(block->first);
      if (live != nullptr) {
        add(info, spell(*live));
      } else {
        block_info piece = gap_of(block->second.bytes);
        piece.active = block->second.is_live;  // freed, and still used on another stream
        add(info, std::move(piece));
      }
    }
    segments.push_back(std::move(info));
  }
  return segments;
}

}  // namespace cenote::torch
