// Chunks of pinned memory that are kept, and how many bytes they serve.
#include "cenote/driver/pinned_chunks.hpp"

#include <algorithm>
#include <vector>

#include "cenote/ground/bytes.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class pinned_memory : public simulated_device {
 protected:
  void TearDown() override {
    chunks().keep_at_most(0);
    chunks().keep_at_most(std::size_t{64} << 30);
    simulated_device::TearDown();
  }
  static pinned_chunks& chunks() { return pinned_chunks::get(); }

  /// Pins two chunks at once, so that none is the other one, and has them kept.
  static void keep_256_and_32_mib() {
    touched_chunks touched(256 * MiB);
    const pinned_chunks::chunk large = chunks().take(0, 256 * MiB, &touched);
    const pinned_chunks::chunk small = chunks().take(0, 1);
    ASSERT_EQ(large.bytes(), 256 * MiB);
    ASSERT_EQ(small.bytes(), 32 * MiB);
  }
};

TEST_F(pinned_memory, serves_with_what_is_kept_as_much_as_it_says) {
  EXPECT_EQ(chunks().kept_bytes_for(MiB), 0U);
  keep_256_and_32_mib();
  EXPECT_EQ(chunks().kept_bytes(), 288 * MiB);
  for (const std::size_t wanted : {0 * MiB, 1 * MiB, 32 * MiB, 64 * MiB, 127 * MiB, 128 * MiB, 256 * MiB, 1024 * MiB}) {
    const std::size_t said = chunks().kept_bytes_for(wanted);
    std::vector<pinned_chunks::chunk> taken;
    std::size_t served = 0;
    while (served < wanted) {
      const std::size_t kept = chunks().kept_bytes();
      taken.push_back(chunks().take(0, wanted - served));
      if (chunks().kept_bytes() == kept) break;  // one was pinned
      served += taken.back().bytes();
    }
    EXPECT_EQ(said, std::min(served, wanted)) << wanted;
    taken.clear();
    chunks().keep_at_most(0);
    chunks().keep_at_most(std::size_t{64} << 30);
    keep_256_and_32_mib();
  }
  EXPECT_EQ(chunks().kept_bytes_for(64 * MiB), 64 * MiB) << "256 MiB serve 64, four times less";
  EXPECT_EQ(chunks().kept_bytes_for(32 * MiB), 32 * MiB);
  const pinned_chunks::chunk small = chunks().take(0, 1);
  EXPECT_EQ(chunks().kept_bytes_for(32 * MiB), 0U) << "256 MiB are too much for 32";
}

}  // namespace
}  // namespace cenote::test
