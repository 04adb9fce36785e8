#include "cenote/surface/shortage.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
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
std::vector<memory_holder> by_site(const std::vector<held_block>& blocks) {
  std::vector<std::uintptr_t> addresses;
  addresses.reserve(blocks.size());
  for (const held_block& block : blocks) addresses.push_back(block.address);
  known_sites known = sites_of(addresses);
  std::vector<memory_holder> sites(known.names.size() + 1);  // the last one is of what was not sampled
  for (std::size_t i = 0; i < known.of_block.size(); ++i) {
    memory_holder& holder = sites[std::min(known.of_block[i], known.names.size())];
    holder.bytes += blocks[i].bytes;
    ++holder.blocks;
  }
  const bool is_none_sampled = sites.back().blocks == known.of_block.size();
  if (is_none_sampled) return {};
  for (memory_holder& holder : sites) holder.of = memory_holder::kind::site;
  for (std::size_t i = 0; i < known.names.size(); ++i) sites[i].name = std::move(known.names[i]);
  return sites;
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
  append_by_size(all, by_site(blocks));
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
