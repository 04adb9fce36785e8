// What the tests on the simulated device share: the fixture, control of the driver, and bytes read back.
#pragma once

#include <cuda.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/stream.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote_sim.h"

namespace cenote::test {

inline cenote_sim_live_objects live_objects() {
  cenote_sim_live_objects live{};
  cenote_sim_live(&live);
  return live;
}

/// Objects that the program made and has not given back, of every kind but contexts, which are kept for the process.
inline std::uint64_t live_object_count() {
  const auto live = live_objects();
  return live.allocations + live.pools + live.streams + live.events + live.graphs + live.reservations + live.mappings +
         live.handles;
}

inline std::vector<std::string> violations() {
  std::vector<std::string> lines;
  for (int i = 0; i < cenote_sim_violation_count(); ++i) {
    char text[512] = {};
    cenote_sim_violation(i, text, sizeof(text));
    lines.emplace_back(text);
  }
  return lines;
}

/// A test must leave the driver with as many objects as it found, and do nothing that the driver forbids.
class simulated_device : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int device = 0; device < device_count(); ++device) synchronize_device(device);  // retains the contexts
    cenote_sim_clear_violations();
    cenote_sim_reset_calls();
    before_ = live_objects();
    objects_before_ = live_object_count();
  }

  void TearDown() override {
    cenote_sim_drain();
    EXPECT_EQ(live_object_count(), objects_before_) << "objects of the driver were leaked";
    EXPECT_EQ(live_objects().device_bytes, before_.device_bytes) << "device memory was leaked";
    for (const std::string& line : violations()) ADD_FAILURE() << "violation: " << line;
  }

 private:
  cenote_sim_live_objects before_{};
  std::uint64_t objects_before_ = 0;
};

/// Calls of the driver while it lives.
class call_count {
 public:
  explicit call_count(const char* name) : name_(name), before_(cenote_sim_calls(name)) {}
  long long value() const { return cenote_sim_calls(name_) - before_; }

 private:
  const char* name_;
  long long before_;
};

/// The bytes at `memory` once the work queued on `stream` is done; no other stream is waited for.
inline std::vector<unsigned char> read(const void* memory, std::size_t bytes, stream_ref stream, int device = 0) {
  std::vector<unsigned char> host(bytes);
  copy_async(host.data(), memory, bytes, stream, device);
  synchronize(stream, device);
  return host;
}

inline bool all_are(const std::vector<unsigned char>& bytes, unsigned char value) {
  return std::all_of(bytes.begin(), bytes.end(), [=](unsigned char b) { return b == value; });
}

/// What is written to stderr while it lives.
class captured_stderr {
 public:
  captured_stderr() : file_(std::tmpfile()), saved_(dup(STDERR_FILENO)) { dup2(fileno(file_), STDERR_FILENO); }
  ~captured_stderr() {
    restore();
    std::fclose(file_);
  }
  captured_stderr(const captured_stderr&) = delete;
  captured_stderr& operator=(const captured_stderr&) = delete;

  std::string text() {
    restore();
    std::rewind(file_);
    std::string all;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) all += static_cast<char>(c);
    return all;
  }

 private:
  void restore() {
    if (saved_ < 0) return;
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    saved_ = -1;
  }

  std::FILE* file_;
  int saved_;
};

}  // namespace cenote::test
