#include "cenote/ground/bytes.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace cenote {
namespace {

constexpr std::size_t largest = std::numeric_limits<std::size_t>::max();

TEST(align_up, rounds_to_the_next_multiple) {
  EXPECT_EQ(align_up(0, 256), 0u);
  EXPECT_EQ(align_up(1, 256), 256u);
  EXPECT_EQ(align_up(256, 256), 256u);
  EXPECT_EQ(align_up(257, 256), 512u);
  EXPECT_EQ(align_up(7, 1), 7u);
}

TEST(align_up, saturates_at_the_largest_multiple_instead_of_wrapping) {
  const std::size_t top = largest - 255;  // 2^64 - 256
  EXPECT_EQ(align_up(top, 256), top);
  for (const std::size_t n : {top + 1, top + 128, largest}) EXPECT_EQ(align_up(n, 256), top);
  EXPECT_EQ(align_up(largest, 1), largest);
  EXPECT_EQ(align_up(largest, std::size_t{1} << 63), std::size_t{1} << 63);
}

TEST(align_up, never_gives_less_than_a_size_that_fits_below_2_to_the_64) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) {
    const std::size_t n = random() >> (random() % 64);
    const std::size_t alignment = std::size_t{1} << (random() % 40);
    const std::size_t up = align_up(n, alignment);
    EXPECT_EQ(up % alignment, 0u);
    if (n <= align_down(largest, alignment)) {
      EXPECT_GE(up, n);
      EXPECT_LT(up - n, alignment);
    }
  }
}

TEST(is_power_of_two, is_true_of_exactly_64_numbers) {
  for (unsigned bit = 0; bit < 64; ++bit) EXPECT_TRUE(is_power_of_two(std::size_t{1} << bit));
  for (const std::size_t n : {std::size_t{0}, std::size_t{3}, std::size_t{257}, largest})
    EXPECT_FALSE(is_power_of_two(n));
}

TEST(parse_bytes, reads_numbers_with_and_without_units) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("4096"), 4096u);
  EXPECT_EQ(parse_bytes(" 1 KiB\t"), 1024u);
  EXPECT_EQ(parse_bytes("1kb"), 1000u);
  EXPECT_EQ(parse_bytes("2MB"), 2'000'000u);
  EXPECT_EQ(parse_bytes("1.5GiB"), 3 * GiB / 2);
  EXPECT_EQ(parse_bytes("2.5 mb"), 2'500'000u);
  EXPECT_EQ(parse_bytes("3PiB"), std::size_t{3} << 50);
  EXPECT_EQ(parse_bytes("12b"), 12u);
}

TEST(parse_bytes, keeps_whole_numbers_exact_up_to_2_to_the_64) {
  EXPECT_EQ(parse_bytes("9007199254740993"), 9007199254740993u);  // 2^53 + 1 is no double
  EXPECT_EQ(parse_bytes("18446744073709551615"), largest);
  EXPECT_EQ(parse_bytes("16383PiB"), std::size_t{16383} << 50);
}

TEST(parse_bytes, refuses_what_passes_2_to_the_64) {
  for (const char* text : {"18446744073709551616", "16384PiB", "18446744073709551615kb", "18446744073709551616.0",
                           "16384.0PiB", "99999999999999999999999999"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
  }
}

TEST(parse_bytes, refuses_what_is_no_size) {
  for (const char* text : {"", " ", "GiB", "-1", "+1", "1.", ".5", "1.2.3", "1 2", "0x10", "1e5", "1 GiBs", "1GiB 2",
                           "one", "1,5GiB", "nan", "inf", "50%"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << "'" << text << "'";
  }
}

TEST(parse_bytes, reads_back_what_spell_bytes_wrote) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 10'000; ++i) {
    const std::size_t bytes = (random() >> (random() % 64)) << (random() % 60);
    EXPECT_EQ(parse_bytes(spell_bytes(bytes)), bytes) << spell_bytes(bytes);
  }
  EXPECT_EQ(spell_bytes(8 * GiB), "8GiB");
  EXPECT_EQ(spell_bytes(1000), "1000");
}

TEST(format_address, is_hexadecimal) {
  EXPECT_EQ(format_address(nullptr), "0x0");
  EXPECT_EQ(format_address(reinterpret_cast<const void*>(0x7f00beef)), "0x7f00beef");
}

TEST(format_bytes, names_the_unit_that_people_expect) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(3 * GiB / 2), "1.50 GiB");
  EXPECT_EQ(format_bytes(std::size_t{1} << 50), "1.00 PiB");
}

}  // namespace
}  // namespace cenote
