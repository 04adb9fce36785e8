// Who holds what, by client, tag and device, and what an error says of it.
#include "cenote/surface/shortage.hpp"

#include <string>

#include "cenote/ground/pressure.hpp"
#include "cenote/surface/call_site.hpp"
#include "support/clients.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class shortages : public clients {};

const memory_holder* find(const std::vector<memory_holder>& holders, const std::string& name) {
  for (const memory_holder& each : holders) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

TEST_F(shortages, name_the_clients_and_tags_that_hold_memory_of_the_device) {
  const auto pool = use_pool(64 * MiB);
  void* plain = client_allocate(client_, 0, MiB, {});
  void* elsewhere = client_allocate(client_, 1, MiB, {});
  void* tagged = nullptr;
  {
    const tag_scope outer("outer");
    const tag_scope inner("inner");
    tagged = client_allocate(client_, 0, 2 * MiB, {});
  }
  client_holds(client_, 0, &plain, 4 * MiB, {});
  const auto holders = holders_of(0);
  EXPECT_EQ(find(holders, "tests")->bytes, 7 * MiB);
  EXPECT_EQ(find(holders, "tests")->blocks, 3);
  EXPECT_EQ(find(holders, "inner")->bytes, 2 * MiB);
  EXPECT_EQ(find(holders, "outer"), nullptr);
  EXPECT_EQ(find(holders, "")->bytes, 5 * MiB) << "what has no tag";
  EXPECT_EQ(find(holders_of(1), "tests")->bytes, MiB);
  client_lets_go(client_, 0, &plain, 4 * MiB);
  for (void* block : {plain, elsewhere, tagged}) client_deallocate(block, {});
  EXPECT_TRUE(holders_of(0).empty());
}

TEST_F(shortages, name_the_call_sites_where_they_are_sampled) {
  const auto pool = use_pool(64 * MiB);
  void* const before = client_allocate(client_, 0, MiB, {});
  const auto sites = [] {
    std::vector<memory_holder> found = holders_of(0);
    std::erase_if(found, [](const memory_holder& each) { return each.of != memory_holder::kind::site; });
    return found;
  };
  sample_call_sites(1, [] { return std::string("here.py:1"); });
  EXPECT_TRUE(sites().empty()) << "nothing that is held was sampled";
  void* const sampled = client_allocate(client_, 0, 2 * MiB, {});
  ASSERT_EQ(sites().size(), 2);
  EXPECT_EQ(sites()[0].name, "here.py:1");
  EXPECT_EQ(sites()[0].bytes, 2 * MiB);
  EXPECT_EQ(sites()[1].name, "") << "what was not sampled";
  EXPECT_EQ(sites()[1].bytes, MiB);
  sample_call_sites(0, nullptr);
  for (void* block : {before, sampled}) client_deallocate(block, {});
}

TEST_F(shortages, are_told_with_what_was_tried) {
  const auto pool = use_pool(4 * MiB);
  void* const block = client_allocate(client_, 0, 3 * MiB, {});
  const auto id = add_pressure_handler("spill", [](std::size_t bytes, int device) {
    EXPECT_EQ(bytes, 2 * MiB);
    EXPECT_EQ(device, 0);
    return relief(5);
  });
  try {
    client_allocate(client_, 0, 2 * MiB, {});
    FAIL() << "there was memory";
  } catch (const out_of_memory& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("\n  device 0, stream 0\n"), std::string::npos) << text;
    EXPECT_NE(text.find("\n  held by client: tests 3.00 MiB in 1 block\n"), std::string::npos) << text;
    EXPECT_NE(text.find("\n  tried: blocks of other streams"), std::string::npos) << text;
    EXPECT_NE(text.find(", spill (5 B freed)"), std::string::npos) << text;
    EXPECT_EQ(error.known().rounded, 2 * MiB);
    EXPECT_TRUE(error.known().knows_holders);
  }
  remove_pressure_handler(id);
  client_deallocate(block, {});
}

TEST_F(shortages, end_where_a_handler_gives_a_clients_block_back) {
  const auto pool = use_pool(4 * MiB);
  void* cached = client_allocate(client_, 0, 3 * MiB, {});
  const auto id = add_pressure_handler("cache", [&](std::size_t, int) {
    client_deallocate(cached, {});
    return relief(3 * MiB);
  });
  void* const block = client_allocate(client_, 0, 2 * MiB, {});
  EXPECT_NE(block, nullptr);
  remove_pressure_handler(id);
  client_deallocate(block, {});
}

TEST_F(shortages, leave_a_clients_own_block_to_the_client) {
  int owned = 0;
  client_holds(client_, 0, &owned, MiB, {});
  EXPECT_FALSE(client_deallocate(&owned, {})) << "the ledger did not allocate it";
  EXPECT_EQ(usage_of("tests").bytes, MiB);
  client_lets_go(client_, 0, &owned, MiB);
  EXPECT_EQ(usage_of("tests").bytes, 0);
}

}  // namespace
}  // namespace cenote::test
