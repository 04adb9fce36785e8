// Page sets: several addresses over one memory, and what is given back when.
#include "cenote/driver/page_set.hpp"

#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/ground/bytes.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t set_page = page_set::page_bytes;

class page_sets : public simulated_device {
 protected:
  void SetUp() override {
    aside_stream(0);  // which is kept for the process
    simulated_device::SetUp();
  }
};

TEST_F(page_sets, shows_the_same_memory_at_every_range_of_an_offset) {
  page_set set(0);
  std::byte* const first = set.map(0, 3 * set_page);
  std::byte* const second = set.map(set_page, 2 * set_page);
  fill_async(first + set_page, 7, 2 * set_page, {}, 0);
  synchronize(stream_ref{}, 0);
  EXPECT_EQ(read(second, 1, {})[0], 7);
  EXPECT_EQ(read(second + 2 * set_page - 1, 1, {})[0], 7);
  EXPECT_TRUE(set.unmap(first));
  EXPECT_TRUE(set.unmap(second));
  EXPECT_EQ(set.trim(true), 0U);
}

TEST_F(page_sets, is_as_large_as_the_furthest_range_in_use) {
  page_set set(0);
  std::byte* const large = set.map(0, 5 * set_page);
  std::byte* const small = set.map(0, 2 * set_page);
  EXPECT_EQ(set.trim(false), 5 * set_page);
  set.unmap(large);
  EXPECT_EQ(set.trim(true), 2 * set_page);
  set.unmap(small);
  EXPECT_EQ(set.trim(true), 0U);
  EXPECT_EQ(live_objects().mappings, 0U);
}

TEST_F(page_sets, keeps_a_range_mapped_until_the_work_of_the_device_is_done) {
  page_set set(0);
  cuda_stream stream;
  std::byte* const range = set.map(0, set_page);
  fill_async(range, 1, set_page, stream.view(), 0);
  set.unmap(range);
  EXPECT_EQ(set.trim(false), set_page);
  EXPECT_EQ(set.trim(true), 0U);
}

TEST_F(page_sets, marks_nothing_beside_a_capture) {
  page_set set(0);
  std::byte* const range = set.map(0, set_page);
  capture_begins(0);
  const call_count events("cuCtxRecordEvent");
  set.unmap(range);
  EXPECT_EQ(set.trim(true), set_page);
  EXPECT_EQ(events.value(), 0);
  capture_ended(0);
  EXPECT_EQ(set.trim(true), 0U);
}

TEST_F(page_sets, leaves_nothing_behind_where_memory_runs_out) {
  page_set set(0);
  const std::size_t total = device_memory_info(0).total_bytes;
  std::byte* const kept = set.map(0, set_page);
  const auto before = live_object_count();
  EXPECT_EQ(set.map(0, align_up(total, set_page) + set_page), nullptr);
  EXPECT_EQ(set.trim(false), set_page);
  EXPECT_EQ(live_object_count(), before);
  set.unmap(kept);
  set.trim(true);
}

TEST_F(page_sets, refuses_parts_of_pages_and_ranges_that_it_did_not_give) {
  page_set set(0);
  for (const auto& [offset, bytes] : {std::pair{set_page / 2, set_page}, {std::size_t{0}, set_page + 1}, {0, 0}}) {
    EXPECT_THROW(set.map(offset, bytes), std::invalid_argument);
  }
  EXPECT_FALSE(set.unmap(nullptr));
  std::byte* const range = set.map(0, set_page);
  EXPECT_TRUE(set.unmap(range));
  EXPECT_FALSE(set.unmap(range));
  set.trim(true);
}

TEST(page_set_without_virtual_memory, is_refused_with_the_reason) {
  setenv("CENOTE_SIM", "memory=1GiB,virtual_memory=0", 1);
  EXPECT_THROW(page_set(0), std::runtime_error);
}

}  // namespace
}  // namespace cenote::test
