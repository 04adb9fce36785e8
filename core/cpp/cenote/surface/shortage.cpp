#include "cenote/surface/shortage.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>

#include "cenote/ground/flight_recorder.hpp"
#include "cenote/surface/allocation_ledger.hpp"
#include "cenote/surface/call_site.hpp"
#include "cenote/surface/tag.hpp"

namespace cenote::inline v1 {
namespace {

/// Those that hold something, the largest first.
void append_by_size(std::vector<memory_holder>& to, std::vector<memory_holder> each) {
  std::erase_if(each, [](const memory_holder& holder) { return holder.blocks == 0; });
  std::stable_sort(each.begin(), each.end(),
                   [](const memory_holder& a, const memory_holder& b) { return a.bytes > b.bytes; });
  to.insert(to.end(), std::make_move_iterator(each.begin()), std::make_move_iterator(each.end()));
}

/// Empty if none of the blocks was sampled.
std::vector<memory_holder> sites_of(const std::vector<held_block>& blocks) {
  std::unordered_map<std::uintptr_t, std::string> of_block;
  for (sampled_block& each : sampled_blocks()) of_block.emplace(each.address, std::move(each.site));
  if (of_block.empty()) return {};
  std::map<std::string, memory_holder> found;
  for (const held_block& block : blocks) {
    const auto known = of_block.find(block.address);
    memory_holder& holder = found[known == of_block.end() ? std::string() : known->second];
    holder.bytes += block.bytes;
    ++holder.blocks;
  }
  std::vector<memory_holder> sites;
  for (auto& [name, holder] : found) {
    holder.of = memory_holder::kind::site;
    holder.name = name;
    sites.push_back(std::move(holder));
  }
  const bool is_none_sampled = sites.size() == 1 && sites.front().name.empty();
  return is_none_sampled ? std::vector<memory_holder>() : sites;
}

}  // namespace

std::vector<memory_holder> holders_of(int device) {
  const std::vector<client_usage> names = usage();
  const std::vector<held_block> blocks = held_blocks(device);
  std::vector<memory_holder> clients(names.size()), tags(1);
  for (const held_block& block : blocks) {
    if (tags.size() <= block.tag) tags.resize(block.tag + std::size_t{1});
    for (memory_holder* holder : {&clients.at(static_cast<std::size_t>(block.client)), &tags[block.tag]}) {
      holder->bytes += block.bytes;
      ++holder->blocks;
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i) clients[i].name = names[i].name;
  for (std::size_t i = 0; i < tags.size(); ++i) {
    tags[i].of = memory_holder::kind::tag;
    if (tags[i].blocks != 0) tags[i].name = name_of_tag(static_cast<tag_index>(i));
  }
  std::vector<memory_holder> all;
  append_by_size(all, std::move(clients));
  if (tags.size() > 1) append_by_size(all, std::move(tags));
  append_by_size(all, sites_of(blocks));
  return all;
}

out_of_memory explained(const out_of_memory& error, client_index client, stream_id stream) {
  shortage known = error.known();
  if (!known.device || known.knows_holders) return error;
  recorder::note(
      recorder::event::failure, *known.device, nullptr, error.requested(),
      {recorder::stream_number(stream.value, stream.is_capturing()), current_tag(), static_cast<std::uint8_t>(client)});
  try {
    known.holders = holders_of(*known.device);
    known.knows_holders = true;
  } catch (const std::bad_alloc&) {  // the host's memory has run out, too: the figures must do
    known.holders.clear();
  }
  return {error.requested(), error.state(), std::move(known)};
}

}  // namespace cenote::inline v1
