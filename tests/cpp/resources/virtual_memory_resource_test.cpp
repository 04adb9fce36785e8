// The resource of whole pages: what it hands out can be exported to other processes, and registered with a network
// card, as one piece.
#include "cenote/resources/virtual_memory_resource.hpp"

#include "cenote/driver/memory.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class whole_pages : public simulated_device {};

TEST_F(whole_pages, are_one_to_a_block_of_any_size) {
  virtual_memory_resource resource(0);
  for (const std::size_t bytes : {std::size_t{1}, 2 * MiB, 2 * MiB + 1, 37 * MiB, 1 * GiB}) {
    const call_count pages("cuMemCreate");
    void* const block = resource.allocate({}, bytes);
    EXPECT_EQ(pages.value(), 1) << bytes;
    const address_range around = find_address_range(block, 0);
    EXPECT_EQ(around.base, block) << bytes;
    EXPECT_EQ(around.bytes, align_up(bytes, 2 * MiB)) << "what a library sees that asks the driver is all of the block";
    resource.deallocate({}, block, bytes);
  }
}

TEST_F(whole_pages, of_two_blocks_are_not_the_same) {
  virtual_memory_resource resource(0);
  void* const one = resource.allocate({}, 256);
  void* const other = resource.allocate({}, 256);
  EXPECT_NE(find_address_range(one, 0).base, find_address_range(other, 0).base);
  resource.deallocate({}, one, 256);
  resource.deallocate({}, other, 256);
}

}  // namespace
}  // namespace cenote::test
