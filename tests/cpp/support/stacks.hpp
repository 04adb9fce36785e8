// The table of the conformance suites: every resource and every adaptor, alone and over several upstreams.
//
// A part is one resource or adaptor with its parameters; a stack is some parts, outermost first, the last of which
// takes its memory from the driver. stacks_test.cpp compares the parts with the headers that there are.
#pragma once

#include <cstdio>
#include <functional>
#include <ostream>

#include "support/any_device.hpp"

namespace cenote::test {

using resource_ptr = std::shared_ptr<memory_resource>;

/// What every stack can give in one piece. Small: a real device may be shared, and managed memory is dear.
inline constexpr std::size_t largest = 8 * MiB;

/// What the exhaustion of a stack may take.
inline constexpr std::size_t exhaustible = 32 * MiB;

enum class need { nothing, pageable_access, managed_pool };

struct part {
  const char* name;
  const char* kind;  ///< as the resource says
  std::function<resource_ptr(resource_ptr upstream, int device)> make;
  std::optional<bool> is_stream_ordered{};   ///< as its upstream is, if not said
  std::optional<bool> is_host_accessible{};  ///< as its upstream is, if not said
  bool has_specification = true;             ///< text can say it
  need needs = need::nothing;
};

/// What a logging adaptor of the table writes, with the device that it inserts: log_file(".dev0").
std::string log_file(const char* device);

/// Some parts, outermost first.
struct stack {
  std::vector<const part*> parts;

  std::string name() const {
    std::string text;
    for (const part* p : parts) text += (text.empty() ? "" : "_over_") + std::string(p->name);
    return text;
  }

  bool is_stream_ordered() const { return first(&part::is_stream_ordered); }
  bool is_host_accessible() const { return first(&part::is_host_accessible); }

  bool has_specification() const {
    return std::all_of(parts.begin(), parts.end(), [](const part* p) { return p->has_specification; });
  }

  /// The heap's memory, which the driver knows nothing of.
  bool is_heap() const { return parts.back()->needs == need::pageable_access; }

  /// Why `device` cannot have it; empty if it can.
  std::string missing(int device) const;

  /// Makes the resources on `device`; `above_base` may put something over the innermost one.
  resource_ptr make(int device, const std::function<resource_ptr(resource_ptr)>& above_base = {}) const;

 private:
  bool first(std::optional<bool> part::* trait) const {
    for (const part* p : parts) {
      if (p->*trait) return *(p->*trait);
    }
    return false;
  }
};

inline void PrintTo(const stack& s, std::ostream* out) { *out << s.name(); }

/// Each part alone or over plain memory: the least that shows all of them.
std::vector<stack> every_part();

/// Every part; what stands over something also over a pool and over the driver's pool; a pool over every base; and
/// stacks of many.
std::vector<stack> every_stack();

/// Bytes that nobody gave back, where the resource knows. Bins keep what they have of a pool under them until they are
/// trimmed, each when the work of those before it is done.
inline std::size_t in_use_when_trimmed(memory_resource& resource) {
  do {
    synchronize_device(resource.device());
  } while (resource.trim() != 0);
  return resource.state().in_use.value_or(0);
}

inline std::string stack_name(const testing::TestParamInfo<stack>& tested) { return tested.param.name(); }

/// A resource of the table on device 0, where that device can have it, and a stream.
class conformance : public any_device, public testing::WithParamInterface<stack> {
 protected:
  void SetUp() override {
    any_device::SetUp();
    if (const std::string missing = GetParam().missing(0); !missing.empty()) GTEST_SKIP() << missing;
    resource_ = GetParam().make(0);
    stream_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    if (resource_ != nullptr) {
      EXPECT_NO_THROW(resource_->check());
      EXPECT_EQ(in_use_when_trimmed(*resource_), 0u) << "every block was given back";
      EXPECT_EQ(resource_.use_count(), 1) << "nothing keeps it";
    }
    stream_.reset();
    resource_.reset();
    std::remove(log_file(".dev0").c_str());
    any_device::TearDown();
  }

  stream_ref stream() const { return stream_->view(); }

  resource_ptr resource_;
  std::optional<cuda_stream> stream_;
};

}  // namespace cenote::test
