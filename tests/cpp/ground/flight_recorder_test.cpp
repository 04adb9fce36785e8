// The flight recorder's ring: what is copied out of it is whole, in order, and the newest.
#include "cenote/ground/flight_recorder.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace cenote::test {
namespace {

struct copied_event {
  std::uint64_t ns, address, bytes, who;
};

struct copied_segment {
  struct {
    std::uint64_t turn, thread, use;
  } head;
  std::vector<copied_event> events;
};

constexpr std::size_t header_bytes = 96, segment_bytes = 16384, segment_head = 64;
constexpr int use_bit = 50, event_bit = 47;

std::uint32_t number_at(const std::string& copy, std::size_t offset) {
  std::uint32_t number = 0;
  std::memcpy(&number, copy.data() + offset, sizeof number);
  return number;
}

/// The segments of a copy, with the events of their present use.
std::vector<copied_segment> segments_of(const std::string& copy) {
  std::vector<copied_segment> all;
  if (copy.size() < header_bytes) return all;
  const std::size_t start = number_at(copy, 28), count = number_at(copy, 20);
  EXPECT_EQ(copy.size(), start + count * segment_bytes);
  for (std::size_t i = 0; i < count; ++i) {
    const char* const at = copy.data() + start + i * segment_bytes;
    copied_segment segment{};
    std::memcpy(&segment.head, at, sizeof segment.head);
    for (std::size_t offset = segment_head; offset < segment_bytes; offset += sizeof(copied_event)) {
      copied_event event{};
      std::memcpy(&event, at + offset, sizeof event);
      if (event.who >> use_bit != segment.head.use >> use_bit || (event.who >> event_bit & 7) == 0) break;
      segment.events.push_back(event);
    }
    all.push_back(std::move(segment));
  }
  return all;
}

void note(int device, std::uintptr_t address, std::size_t bytes) {
  recorder::note(recorder::event::allocate, device, reinterpret_cast<void*>(address), bytes, {});
}

TEST(flight_recorder, keeps_the_newest_events_of_a_thread_in_their_order) {
  constexpr std::size_t many = 1'200'000;  // more than a region holds
  for (std::size_t i = 0; i < many; ++i) note(1, i, i);
  std::map<std::uint64_t, copied_segment> by_turn;
  for (auto& segment : segments_of(recorder::copy(1))) by_turn.emplace(segment.head.turn, segment);
  std::vector<std::uint64_t> bytes;
  std::uint64_t ns = 0;
  for (const auto& [turn, segment] : by_turn) {
    for (const copied_event& event : segment.events) {
      EXPECT_GT(event.ns, ns);
      EXPECT_EQ(event.address, event.bytes);
      ns = event.ns;
      bytes.push_back(event.bytes);
    }
  }
  ASSERT_GT(bytes.size(), 400'000);
  EXPECT_EQ(bytes.back(), many - 1);
  for (std::size_t i = 1; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], bytes[i - 1] + 1);
}

TEST(flight_recorder, copies_whole_events_while_threads_write) {
  std::atomic<bool> is_over{false};
  std::vector<std::thread> writers;
  for (std::uint64_t writer = 1; writer <= 4; ++writer) {
    writers.emplace_back([&, writer] {
      for (std::uint64_t i = 0; !is_over; ++i) note(2, writer << 32 | i, writer << 32 | i);
    });
  }
  for (int copies = 0; copies < 20; ++copies) {
    for (const copied_segment& segment : segments_of(recorder::copy(2))) {
      for (std::size_t i = 0; i < segment.events.size(); ++i) {
        ASSERT_EQ(segment.events[i].address, segment.events[i].bytes);
        ASSERT_EQ(segment.events[i].bytes, segment.events[0].bytes + i);
      }
    }
  }
  is_over = true;
  for (std::thread& writer : writers) writer.join();
}

TEST(flight_recorder, gives_the_segments_of_threads_that_have_ended_to_others) {
  for (int i = 0; i < 3000; ++i) std::thread([] { note(3, 1, 1); }).join();  // more than there are segments
  std::size_t events = 0;
  for (const copied_segment& segment : segments_of(recorder::copy(3))) events += segment.events.size();
  EXPECT_GT(events, 900);
  EXPECT_EQ(number_at(recorder::copy(3), 80), 0) << "none is lost";
}

TEST(flight_recorder, notes_nothing_of_devices_that_there_cannot_be) {
  note(-1, 1, 1);
  note(64, 1, 1);
  EXPECT_EQ(recorder::copy(-1), "");
  EXPECT_EQ(recorder::copy(64), "");
  EXPECT_EQ(recorder::copy(63), "");
}

TEST(flight_recorder, names_what_was_named_before_and_after_a_region_was_made) {
  recorder::name(recorder::names::tags, 5, "before");
  note(4, 1, 1);
  recorder::name(recorder::names::clients, 3, std::string(100, 'x'));
  recorder::name(recorder::names::tags, recorder::most_tags, "beyond");
  const std::string copy = recorder::copy(4);
  const std::size_t names = number_at(copy, 24);
  EXPECT_STREQ(copy.data() + names + (recorder::most_clients + 5) * 64, "before");
  EXPECT_EQ(std::string(copy.data() + names + std::size_t{3} * 64), std::string(recorder::longest_name, 'x'));
}

TEST(flight_recorder, notes_nothing_while_it_is_switched_off) {
  note(5, 1, 1);
  recorder::set_recording(false);
  note(5, 2, 2);
  note(6, 2, 2);
  recorder::set_recording(true);
  EXPECT_EQ(recorder::copy(6), "");
  const auto segments = segments_of(recorder::copy(5));
  ASSERT_EQ(segments.size(), 1);
  EXPECT_EQ(segments[0].events.size(), 1);
}

}  // namespace
}  // namespace cenote::test
