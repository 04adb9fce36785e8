// What the tests that need the simulated device share: control of its driver, and what is written to stderr.
#pragma once

#include <cuda.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <utility>

#include "cenote_sim.h"
#include "support/any_device.hpp"

namespace cenote::test {

using simulated_device = any_device;

inline cenote_sim_live_objects live_objects() { return simulator()->live_objects(); }
inline std::uint64_t live_object_count() { return count_objects(live_objects()); }
inline std::vector<std::string> violations() { return simulator()->violations(); }

/// Calls of the driver while it lives.
class call_count {
 public:
  explicit call_count(const char* name) : name_(name), before_(cenote_sim_calls(name)) {}
  long long value() const { return cenote_sim_calls(name_) - before_; }

 private:
  const char* name_;
  long long before_;
};

/// What happens in the moment before the next call of that name, on the thread that makes it; while it lives, and once.
class before_call {
 public:
  before_call(const char* name, std::function<void()> what) : name_(name), what_(std::move(what)) {
    const auto run = [](void* self) { std::exchange(static_cast<before_call*>(self)->what_, nullptr)(); };
    EXPECT_EQ(cenote_sim_before(name_, run, this), 0);
  }
  ~before_call() {
    cenote_sim_before(name_, nullptr, nullptr);
    EXPECT_EQ(what_, nullptr) << name_ << " was not called";
  }
  before_call(const before_call&) = delete;
  before_call& operator=(const before_call&) = delete;

 private:
  const char* name_;
  std::function<void()> what_;
};

/// A stream that another library made: the core learns of it when it is passed.
class foreign_stream {
 public:
  foreign_stream() {
    const device_scope scope(0);
    EXPECT_EQ(cuStreamCreate(&handle_, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  }
  ~foreign_stream() { EXPECT_EQ(cuStreamDestroy(handle_), CUDA_SUCCESS); }
  foreign_stream(const foreign_stream&) = delete;
  foreign_stream& operator=(const foreign_stream&) = delete;
  stream_ref view() const { return handle_; }

 private:
  CUstream handle_ = nullptr;
};

/// One of cenote's, with the same constructor.
class stream_of_ours {
 public:
  stream_ref view() const { return stream_.view(); }

 private:
  cuda_stream stream_{0, cuda_stream::kind::non_blocking};
};

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
