// What the statistics and the logging adaptor add: counters, and a log.
#include <unistd.h>

#include <array>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>

#include "cenote/adaptors/logging_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"
#include "support/upstream.hpp"

namespace cenote::test {
namespace {

class statistics : public simulated_device {
 protected:
  void TearDown() override {
    for (void* const block : blocks_) adaptor_.deallocate({}, block, 100);
    simulated_device::TearDown();
  }

  void allocate() { blocks_.push_back(adaptor_.allocate({}, 100)); }
  void free() {
    adaptor_.deallocate({}, blocks_.back(), 100);
    blocks_.pop_back();
  }

  statistics_resource_adaptor adaptor_{cuda()};
  std::vector<void*> blocks_;
};

void expect(const counter& seen, std::int64_t current, std::int64_t peak, std::int64_t total) {
  EXPECT_EQ(seen.current, current);
  EXPECT_EQ(seen.peak, peak);
  EXPECT_EQ(seen.total, total);
}

TEST_F(statistics, count_bytes_as_asked_for_and_allocations) {
  allocate();
  allocate();
  free();
  allocate();
  expect(adaptor_.counters().bytes, 200, 200, 300);
  expect(adaptor_.counters().count, 2, 2, 3);
}

TEST_F(statistics, count_no_allocation_that_failed_and_none_of_zero_bytes) {
  EXPECT_EQ(adaptor_.try_allocate({}, 1024 * GiB), nullptr);
  EXPECT_EQ(adaptor_.try_allocate({}, 0), nullptr);
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(adaptor_.allocate({}, 100), cuda_error);
  cenote_sim_fail("cuMemAlloc", 0, 0);
  adaptor_.deallocate({}, nullptr, 100);
  expect(adaptor_.counters().bytes, 0, 0, 0);
  expect(adaptor_.counters().count, 0, 0, 0);
}

TEST_F(statistics, start_afresh_when_pushed_and_hand_out_the_old_ones) {
  allocate();
  expect(adaptor_.push_counters().bytes, 100, 100, 100);
  expect(adaptor_.counters().bytes, 0, 0, 0);
  free();
  expect(adaptor_.counters().bytes, -100, 0, 0);
}

TEST_F(statistics, fold_into_those_below_as_if_they_had_counted_all_along) {
  allocate();
  allocate();
  free();  // below: current 100, peak 200, total 200
  adaptor_.push_counters();
  allocate();
  allocate();
  free();  // on top: current 100, peak 200, total 200; of all: current 200, peak 300, total 400
  const allocation_counters top = adaptor_.pop_counters();
  expect(top.bytes, 100, 200, 200);
  expect(adaptor_.counters().bytes, 200, 300, 400);
  expect(adaptor_.counters().count, 2, 3, 4);
}

TEST_F(statistics, nested_counters_agree_with_counters_that_were_never_pushed) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto inner = std::make_shared<statistics_resource_adaptor>(cuda());
    statistics_resource_adaptor nested(inner);
    std::vector<std::pair<void*, std::size_t>> live;
    int depth = 0;
    for (int step = 0; step < 200; ++step) {
      const auto choice = random() % 8;
      if (choice == 0) {
        nested.push_counters();
        ++depth;
      } else if (choice == 1 && depth > 0) {
        nested.pop_counters();
        --depth;
      } else if (choice < 5 || live.empty()) {
        const std::size_t bytes = 1 + random() % 1000;
        live.emplace_back(nested.allocate({}, bytes), bytes);
      } else {
        nested.deallocate({}, live.back().first, live.back().second);
        live.pop_back();
      }
    }
    for (const auto& [block, bytes] : live) nested.deallocate({}, block, bytes);
    for (; depth > 0; --depth) nested.pop_counters();
    const auto expected = inner->counters();
    expect(nested.counters().bytes, expected.bytes.current, expected.bytes.peak, expected.bytes.total);
    expect(nested.counters().count, expected.count.current, expected.count.peak, expected.count.total);
  }
}

TEST_F(statistics, refuse_to_pop_the_last_counters) {
  EXPECT_THROW(adaptor_.pop_counters(), std::out_of_range);
  adaptor_.push_counters();
  EXPECT_NO_THROW(adaptor_.pop_counters());
  EXPECT_THROW(adaptor_.pop_counters(), std::out_of_range);
}

TEST_F(statistics, scopes_that_a_thread_leaves_open_end_with_it) {
  std::weak_ptr<counting_scope> left_open;
  std::thread([&] {
    adaptor_.push_counters();
    left_open = scopes_of_thread()->back();
  }).join();
  EXPECT_TRUE(left_open.expired());
}

TEST_F(statistics, scopes_count_what_a_thread_frees_as_it_ends) {
  struct block_of_thread {
    statistics_resource_adaptor* owner = nullptr;
    void* block = nullptr;
    allocation_counters* seen = nullptr;
    ~block_of_thread() {
      owner->deallocate({}, block, 100);
      *seen = owner->pop_counters();
    }
  };
  allocation_counters seen;
  std::thread([&] {
    thread_local block_of_thread held;
    held.owner = &adaptor_;
    held.seen = &seen;
    adaptor_.push_counters();
    held.block = adaptor_.allocate({}, 100);
  }).join();
  expect(seen.bytes, 0, 100, 100);
}

TEST_F(statistics, scopes_count_what_their_own_thread_does) {
  allocate();
  adaptor_.push_counters();
  allocate();
  std::thread([&] {
    expect(adaptor_.counters().bytes, 200, 200, 200);  // no scope: the base counters, which count everything
    EXPECT_THROW(adaptor_.pop_counters(), std::out_of_range);
    void* const block = adaptor_.allocate({}, 1000);
    expect(adaptor_.push_counters().bytes, 1200, 1200, 1200);
    adaptor_.deallocate({}, block, 1000);
    expect(adaptor_.counters().bytes, -1000, 0, 0);
    EXPECT_EQ(adaptor_.pop_counters().bytes.current, -1000);
    expect(adaptor_.counters().bytes, 200, 1200, 1200);
  }).join();
  expect(adaptor_.pop_counters().bytes, 100, 100, 100);
  expect(adaptor_.counters().bytes, 200, 1200, 1200);
  expect(adaptor_.counters().count, 2, 3, 3);
}

TEST_F(statistics, scopes_of_a_thread_that_ended_are_nobody_elses) {
  for (int i = 0; i < 20; ++i) {
    std::thread([&] {
      expect(adaptor_.counters().bytes, 0, 0, 0);
      EXPECT_THROW(adaptor_.pop_counters(), std::out_of_range);  // the system may give a dead thread's id again
      adaptor_.push_counters();
    }).join();
  }
  allocate();
  expect(adaptor_.counters().bytes, 100, 100, 100);
}

TEST_F(statistics, of_many_threads_add_up) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      adaptor_.push_counters();
      for (int i = 0; i < 200; ++i) adaptor_.deallocate({}, adaptor_.allocate({}, 100), 100);
      expect(adaptor_.pop_counters().bytes, 0, 100, 200 * 100);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(adaptor_.counters().bytes.current, 0);
  EXPECT_EQ(adaptor_.counters().bytes.total, 4 * 200 * 100);
  EXPECT_LE(adaptor_.counters().count.peak, 4);
}

TEST_F(statistics, have_the_peak_of_all_threads_together_whoever_frees) {
  allocate();
  std::vector<void*> of_others;
  for (int i = 0; i < 3; ++i) std::thread([&] { of_others.push_back(adaptor_.allocate({}, 1000)); }).join();
  expect(adaptor_.counters().bytes, 3100, 3100, 3100);
  for (void* const block : of_others) std::thread([&] { adaptor_.deallocate({}, block, 1000); }).join();
  expect(adaptor_.counters().bytes, 100, 3100, 3100);
  std::thread([&] { adaptor_.deallocate({}, adaptor_.allocate({}, 3000), 3000); }).join();
  expect(adaptor_.counters().bytes, 100, 3100, 6100);
  adaptor_.deallocate({}, adaptor_.allocate({}, 3001), 3001);
  expect(adaptor_.counters().bytes, 100, 3101, 9101);
  expect(adaptor_.counters().count, 1, 4, 6);
}

TEST_F(statistics, refuse_a_null_upstream) {
  EXPECT_THROW(statistics_resource_adaptor(nullptr), std::invalid_argument);
  EXPECT_THROW(logging_resource_adaptor(nullptr, "/tmp/x.csv"), std::invalid_argument);
}

class logging : public simulated_device {
 protected:
  static std::vector<std::string> lines_of(const std::string& file) {
    std::ifstream input(file);
    std::vector<std::string> lines;
    for (std::string line; std::getline(input, line);) lines.push_back(line);
    return lines;
  }

  static std::vector<std::string> fields_of(const std::string& line) {
    std::istringstream input(line);
    std::vector<std::string> fields;
    for (std::string field; std::getline(input, field, ',');) fields.push_back(field);
    return fields;
  }

  const std::string name_ = "/tmp/cenote_adaptors_test_" + std::to_string(getpid()) + ".csv";
  const std::string file_ = "/tmp/cenote_adaptors_test_" + std::to_string(getpid()) + ".dev0.csv";

  void TearDown() override {
    std::remove(file_.c_str());
    simulated_device::TearDown();
  }
};

TEST_F(logging, writes_one_line_of_csv_for_each_allocation_failure_and_free) {
  const cuda_stream stream(0);
  void* first = nullptr;
  void* second = nullptr;
  {
    logging_resource_adaptor adaptor(cuda(), name_);
    EXPECT_EQ(adaptor.file_name(), file_);
    first = adaptor.allocate({}, 100);
    second = adaptor.allocate(stream.view(), 200);
    EXPECT_EQ(adaptor.try_allocate({}, 1024 * GiB), nullptr);
    adaptor.deallocate(stream.view(), second, 200);
    adaptor.deallocate({}, first, 100);
  }
  std::array<char, 32> handle{};
  std::snprintf(handle.data(), handle.size(), "%p", static_cast<void*>(stream.view().value()));
  const auto pointer = [](void* p) {
    std::ostringstream text;
    text << p;
    return text.str();
  };
  const std::vector<std::vector<std::string>> expected = {
      {"allocate", pointer(first), "100", "0"},
      {"allocate", pointer(second), "200", handle.data()},
      {"allocate failure", "(nil)", std::to_string(1024 * GiB), "0"},
      {"free", pointer(second), "200", handle.data()},
      {"free", pointer(first), "100", "0"},
  };
  const auto lines = lines_of(file_);
  ASSERT_EQ(lines.size(), expected.size() + 1);
  EXPECT_EQ(lines[0], "Thread,Time,Action,Pointer,Size,Stream");
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto fields = fields_of(lines[i + 1]);
    ASSERT_EQ(fields.size(), 6u) << lines[i + 1];
    EXPECT_EQ(fields[0], std::to_string(gettid()));
    EXPECT_TRUE(std::regex_match(fields[1], std::regex("([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d\\.\\d{6}"))) << fields[1];
    EXPECT_EQ((std::vector<std::string>{fields.begin() + 2, fields.end()}), expected[i]);
  }
}

TEST_F(logging, writes_out_what_it_has_when_flushed) {
  logging_resource_adaptor adaptor(cuda(), name_);
  void* const block = adaptor.allocate({}, 100);
  adaptor.flush();
  EXPECT_EQ(lines_of(file_).size(), 2u);
  adaptor.deallocate({}, block, 100);
}

TEST_F(logging, takes_its_file_from_the_environment_unless_told) {
  unsetenv("CENOTE_LOG_FILE");
  unsetenv("RMM_LOG_FILE");
  EXPECT_THROW(logging_resource_adaptor(cuda(), ""), std::invalid_argument);
  setenv("RMM_LOG_FILE", name_.c_str(), 1);
  EXPECT_EQ(logging_resource_adaptor(cuda(), "").file_name(), file_);
  setenv("RMM_LOG_FILE", "/nowhere/at/all.csv", 1);
  setenv("CENOTE_LOG_FILE", name_.c_str(), 1);
  EXPECT_EQ(logging_resource_adaptor(cuda(), "").file_name(), file_);
  unsetenv("CENOTE_LOG_FILE");
  unsetenv("RMM_LOG_FILE");
}

TEST_F(logging, names_the_file_that_cannot_be_opened) {
  try {
    logging_resource_adaptor(cuda(), "/nowhere/at/all.csv");
    FAIL() << "the file was opened";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/at/all.dev0.csv"), std::string::npos) << error.what();
  }
}

TEST_F(logging, puts_the_device_at_the_end_of_a_name_without_extension) {
  const logging_resource_adaptor adaptor(cuda(), "/tmp/cenote_adaptors_test_plain");
  EXPECT_EQ(adaptor.file_name(), "/tmp/cenote_adaptors_test_plain.dev0");
  std::remove(adaptor.file_name().c_str());
}

}  // namespace
}  // namespace cenote::test
