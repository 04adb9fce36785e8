#include "cenote/structures/address_map.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>

namespace cenote {
namespace {

const void* address(std::uintptr_t value) { return reinterpret_cast<const void*>(value); }

/// A random history over `key_count` keys that lie `stride` apart, against std::unordered_map.
void compare_with_a_model(unsigned seed, std::uintptr_t stride, std::size_t key_count) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", stride " << stride);
  std::mt19937_64 random(seed);
  address_map map;
  std::unordered_map<const void*, std::uint32_t> model;
  for (int step = 0; step < 2'000; ++step) {
    const void* const key = address(0x7f00'0000'0000 + stride * (random() % key_count));
    const auto known = model.find(key);
    if (known != model.end() && random() % 3 != 0) {
      ASSERT_EQ(map.erase(key), known->second) << "step " << step;
      model.erase(known);
    } else if (known == model.end()) {
      ASSERT_EQ(map.erase(key), address_map::none) << "step " << step;
      const auto value = static_cast<std::uint32_t>(random() >> 33);
      map.insert(key, value);
      model.emplace(key, value);
    }
    ASSERT_NO_THROW(map.check()) << "step " << step;
    ASSERT_EQ(map.size(), model.size()) << "step " << step;
    const void* const asked = address(0x7f00'0000'0000 + stride * (random() % key_count));
    const auto expected = model.find(asked);
    ASSERT_EQ(map.find(asked), expected == model.end() ? address_map::none : expected->second) << "step " << step;
  }
  for (const auto& [key, value] : model) ASSERT_EQ(map.find(key), value);
}

TEST(address_map, behaves_as_an_unordered_map) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    compare_with_a_model(seed, 256, 48);                       // stays at its first size: long probes
    compare_with_a_model(seed, 256, 600);                      // grows
    compare_with_a_model(seed, std::uintptr_t{1} << 36, 200);  // keys that differ in high bits only
  }
}

TEST(address_map, has_no_entry_when_it_is_new) {
  const address_map map;
  EXPECT_EQ(map.size(), 0u);
  EXPECT_EQ(map.find(address(256)), address_map::none);
  EXPECT_NO_THROW(map.check());
}

TEST(address_map, erases_what_is_absent_without_effect) {
  address_map map;
  map.insert(address(256), 7);
  EXPECT_EQ(map.erase(address(512)), address_map::none);
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map.find(address(256)), 7u);
}

}  // namespace
}  // namespace cenote
