// Memory of the host for chunks, found by threads ahead of who takes it.
#include "cenote/driver/touched_chunks.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <vector>

namespace cenote::test {
namespace {

constexpr std::size_t chunk_bytes = touched_chunks::chunk_bytes;
constexpr std::size_t small_page = 4096;

/// Whether the host has memory for each small page of a chunk; empty where the chunk is not mapped.
std::vector<unsigned char> resident_pages(std::byte* chunk) {
  std::vector<unsigned char> pages(chunk_bytes / small_page);
  if (mincore(chunk, chunk_bytes, pages.data()) != 0) return {};
  return pages;
}

bool is_touched(std::byte* chunk) {
  const auto pages = resident_pages(chunk);
  if (pages.empty()) return false;
  return std::ranges::all_of(pages, [](unsigned char flags) { return (flags & 1) != 0; });
}

TEST(touched_chunks, gives_each_chunk_once_and_has_touched_all_of_it) {
  std::set<std::byte*> taken;
  {
    touched_chunks chunks(20);  // more than are touched ahead
    for (int i = 0; i < 20; ++i) {
      std::byte* const chunk = chunks.take();
      ASSERT_NE(chunk, nullptr);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(chunk) % (std::size_t{2} << 20), 0U);
      EXPECT_TRUE(is_touched(chunk));
      EXPECT_TRUE(taken.insert(chunk).second);
    }
  }
  for (std::byte* const chunk : taken) {
    EXPECT_TRUE(is_touched(chunk)) << "what was taken outlives the threads";
    touched_chunks::unmap(chunk);
    EXPECT_TRUE(resident_pages(chunk).empty());
  }
}

TEST(touched_chunks, gives_more_than_were_promised_untouched) {
  touched_chunks chunks(1);
  const std::array taken{chunks.take(), chunks.take(), chunks.take()};
  for (std::byte* const chunk : taken) {
    ASSERT_NE(chunk, nullptr);
    EXPECT_EQ(is_touched(chunk), chunk == taken[0]);
    touched_chunks::unmap(chunk);
  }
}

TEST(touched_chunks, may_end_before_all_are_taken) {
  for (int i = 0; i < 5; ++i) {
    touched_chunks chunks(12);
    if (i == 0) continue;
    touched_chunks::unmap(chunks.take());
  }
}

}  // namespace
}  // namespace cenote::test
