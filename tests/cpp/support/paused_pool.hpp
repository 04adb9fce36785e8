// A pool on the simulated device whose blocks have contents that are known, to be paused and looked at.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cenote/driver/memory.hpp"
#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {

class pauses : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    unpooled_ = live_objects().device_bytes;
    pool_ = make_pool();
  }

  void TearDown() override {
    for (const held& each : held_) pool_->deallocate({}, each.at, each.bytes);
    pool_.reset();
    pinned_chunks::get().keep_at_most(0);
    pinned_chunks::get().keep_at_most(max_allocation);
    simulated_device::TearDown();
  }

  struct held {
    std::byte* at;
    std::size_t bytes;
    unsigned char value;
  };

  static std::shared_ptr<pool_memory_resource> make_pool() {
    return std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0));
  }

  void hold(std::size_t bytes, stream_ref stream = {}) {
    const auto value = static_cast<unsigned char>(held_.size() + 1);
    auto* const at = static_cast<std::byte*>(pool_->allocate(stream, bytes));
    fill_async(at, value, bytes, stream, 0);
    held_.push_back({at, bytes, value});
  }

  /// Blocks over several pages, with free ones of all sizes between them.
  void hold_some() {
    std::vector<std::pair<void*, std::size_t>> between;
    for (const std::size_t bytes : {300ul, 3 * MiB, 512ul, 80 * KiB, 5 * MiB, 256ul, 2 * MiB, 90 * KiB, 700 * KiB}) {
      hold(bytes);
      between.emplace_back(pool_->allocate({}, bytes), bytes);
    }
    for (const auto& [block, bytes] : between) pool_->deallocate({}, block, bytes);
  }

  void expect_contents() const {
    for (const held& each : held_) EXPECT_TRUE(all_are(read(each.at, each.bytes, {}), each.value)) << each.bytes;
  }

  void expect_kept() const {
    for (const held& each : held_) {
      std::vector<unsigned char> kept(each.bytes);
      EXPECT_TRUE(pool_->read_paused(kept.data(), each.at, each.bytes)) << each.bytes;
      EXPECT_TRUE(all_are(kept, each.value)) << each.bytes;
    }
  }

  std::size_t mapped_bytes() const { return live_objects().device_bytes - unpooled_; }

  std::size_t unpooled_ = 0;
  std::shared_ptr<pool_memory_resource> pool_;
  std::vector<held> held_;
};

/// Where contents go.
class pauses_in : public pauses, public testing::WithParamInterface<std::string> {
 protected:
  void hold_some() {
    if (GetParam() == "host") return pauses::hold_some();
    for (const std::size_t bytes : {300ul, 3 * MiB, 80 * KiB}) hold(bytes);
  }
};

}  // namespace cenote::test
