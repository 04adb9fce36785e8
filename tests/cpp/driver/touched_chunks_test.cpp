// Memory of the host for chunks, found by threads ahead of who takes it.
#include "cenote/driver/touched_chunks.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <vector>

namespace cenote::test {
namespace {

constexpr std::size_t piece_bytes = touched_chunks::piece_bytes;
constexpr std::size_t small_page = 4096;

/// Whether the host has memory for each small page of a chunk; empty where some of it is not mapped.
std::vector<unsigned char> resident_pages(touched_chunks::chunk chunk) {
  std::vector<unsigned char> pages(chunk.bytes / small_page);
  if (mincore(chunk.at, chunk.bytes, pages.data()) != 0) return {};
  return pages;
}

bool is_touched(touched_chunks::chunk chunk) {
  const auto pages = resident_pages(chunk);
  if (pages.empty()) return false;
  return std::ranges::all_of(pages, [](unsigned char flags) { return (flags & 1) != 0; });
}

TEST(touched_chunks, gives_all_once_by_halves_of_at_least_eight_pieces_and_has_touched_them) {
  std::vector<touched_chunks::chunk> taken;
  {
    touched_chunks chunks(33 * piece_bytes);
    for (const std::size_t pieces : {16, 8, 8, 1}) {
      taken.push_back(chunks.take());
      ASSERT_NE(taken.back().at, nullptr);
      EXPECT_EQ(taken.back().bytes, pieces * piece_bytes);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(taken.back().at) % (std::size_t{2} << 20), 0U);
      EXPECT_TRUE(is_touched(taken.back()));
    }
  }
  std::ranges::sort(taken, {}, &touched_chunks::chunk::at);
  for (std::size_t i = 1; i < taken.size(); ++i) EXPECT_GE(taken[i].at, taken[i - 1].at + taken[i - 1].bytes);
  for (const auto& chunk : taken) {
    EXPECT_TRUE(is_touched(chunk)) << "what was taken outlives the threads";
    touched_chunks::unmap(chunk);
    EXPECT_TRUE(resident_pages(chunk).empty());
  }
}

TEST(touched_chunks, rounds_up_to_pieces_and_gives_more_than_was_said_untouched) {
  touched_chunks chunks(piece_bytes + 1);
  const std::array taken{chunks.take(), chunks.take(), chunks.take()};
  EXPECT_EQ(taken[0].bytes, 2 * piece_bytes);
  EXPECT_TRUE(is_touched(taken[0]));
  for (std::size_t i = 1; i < taken.size(); ++i) {
    ASSERT_NE(taken[i].at, nullptr);
    EXPECT_EQ(taken[i].bytes, piece_bytes);
    EXPECT_FALSE(is_touched(taken[i]));
  }
  for (const auto& chunk : taken) touched_chunks::unmap(chunk);
}

TEST(touched_chunks, comes_in_pieces_where_there_are_no_addresses_for_all) {
  touched_chunks chunks(std::size_t{1} << 60);
  const auto taken = chunks.take();
  ASSERT_NE(taken.at, nullptr);
  EXPECT_EQ(taken.bytes, piece_bytes);
  touched_chunks::unmap(taken);
}

std::size_t bytes_of_addresses() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * small_page;
}

TEST(touched_chunks, may_end_before_all_are_taken) {
  constexpr std::size_t bytes = 1000 * piece_bytes;
  std::size_t before = 0;
  for (int i = 0; i < 3; ++i) {
    touched_chunks chunks(bytes);
    if (i == 1) before = bytes_of_addresses();  // the first time threads get stacks, which the system keeps
    if (i == 2) {
      EXPECT_LT(bytes_of_addresses(), before + bytes / 2) << "addresses of the rest are kept";
    }
    if (i == 0) continue;
    const auto largest = chunks.take();
    EXPECT_EQ(largest.bytes, 32 * piece_bytes) << "no chunk is larger, whatever is left";
    touched_chunks::unmap(largest);
  }
}

}  // namespace
}  // namespace cenote::test
