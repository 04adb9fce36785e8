// What a framework's allocation asks the driver on its way through the ledger.
#include "cenote/surface/allocation_ledger.hpp"

#include "support/clients.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class ledger : public clients {
 protected:
  void SetUp() override {
    clients::SetUp();
    pool_ = use_pool(64 * MiB);
  }

  void TearDown() override {
    pool_.reset();
    clients::TearDown();
  }

  std::shared_ptr<pool_memory_resource> pool_;
};

TEST_F(ledger, asks_once_who_a_stream_is_at_an_allocation_and_once_at_a_free) {
  const foreign_stream stream;
  const auto pair = [&](auto&& between) {
    void* const block = client_allocate(client_, 0, 1000, stream.view());
    between();
    client_deallocate(block, stream.view());
  };
  for (int i = 0; i < 4; ++i) pair([] {});
  const call_count all(nullptr), ids("cuStreamGetId"), captures("cuStreamIsCapturing");
  pair([&] {
    EXPECT_EQ(ids.value(), 1);
    EXPECT_EQ(captures.value(), 1);
  });
  EXPECT_EQ(ids.value(), 2);
  EXPECT_EQ(captures.value(), 2);
  EXPECT_EQ(all.value(), 4);
}

}  // namespace
}  // namespace cenote::test
