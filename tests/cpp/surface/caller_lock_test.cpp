// What the ledger does under a lock of its caller's, and what only without.
#include <stdexcept>
#include <thread>

#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"
#include "cenote/cenote_or_throw.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/resource_adaptor.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "support/clients.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class caller_locks : public clients {
 protected:
  void SetUp() override {
    clients::SetUp();
    is_held_ = true;
    releases_ = 0;
  }

  void TearDown() override {
    EXPECT_TRUE(is_held_) << "the lock was not taken back";
    clients::TearDown();
  }

  static void* release() {
    EXPECT_TRUE(is_held_);
    is_held_ = false;
    return &releases_;
  }

  static void acquire(void* released) {
    EXPECT_FALSE(is_held_);
    EXPECT_EQ(released, &releases_) << "it must be what release returned";
    is_held_ = true;
    ++releases_;
  }

  void* allocate(std::size_t bytes, stream_ref stream = {}) {
    return client_allocate(client_, 0, bytes, stream, {release, acquire});
  }
  static bool deallocate(void* pointer, stream_ref stream = {}) {
    return client_deallocate(pointer, stream, {release, acquire});
  }

  /// How often the lock has been released since this was asked last.
  static int releases() { return std::exchange(releases_, 0); }

  /// A pool that has blocks of 1000 bytes for `stream` at once, and room for them.
  std::shared_ptr<memory_resource> warm_pool(stream_ref stream = {}) {
    auto pool = use_pool(64 * MiB);
    for (int i = 0; i < 4; ++i) deallocate(allocate(1000, stream), stream);
    EXPECT_GE(releases(), 2) << "there was nothing at first";
    return pool;
  }

  inline static bool is_held_ = true;
  inline static int releases_ = 0;
};

/// A resource that says at whose hands it ends.
class mortal_resource final : public resource_adaptor {
 public:
  mortal_resource(std::shared_ptr<memory_resource> upstream, std::function<void()> at_end)
      : resource_adaptor(std::move(upstream), "mortal_resource"), at_end_(std::move(at_end)) {}
  ~mortal_resource() override { at_end_(); }
  std::string kind() const override { return "mortal"; }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override {
    return next().try_allocate(stream, bytes, alignment);
  }
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept override {
    next().deallocate(stream, pointer, bytes, alignment);
  }
  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override {
    return next().allocate_at_once(stream, bytes, alignment);
  }
  bool do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override {
    return next().deallocate_at_once(stream, pointer, bytes, alignment);
  }

  std::function<void()> at_end_;
};

TEST_F(caller_locks, what_is_there_at_once_is_had_and_freed_under_them) {
  warm_pool();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(deallocate(allocate(1000)));
  EXPECT_EQ(releases(), 0);
}

TEST_F(caller_locks, a_stream_of_its_own_is_served_under_them_too) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  warm_pool(stream);
  for (int i = 0; i < 3; ++i) deallocate(allocate(1000, stream), stream);
  EXPECT_EQ(releases(), 0);
}

TEST_F(caller_locks, are_released_around_what_calls_the_program) {
  const auto program = std::make_shared<program_resource>(std::make_shared<cuda_memory_resource>(0));
  program->has_memory = [] { return !is_held_; };
  program->before_free = [] { EXPECT_FALSE(is_held_); };
  set_per_device_resource(0, program);
  void* const block = allocate(1000);
  EXPECT_NE(block, nullptr);
  deallocate(block);
  EXPECT_EQ(releases(), 2);
}

TEST_F(caller_locks, hide_no_capture_that_the_program_begins_when_it_is_called) {
  const foreign_stream stream;
  const auto program = [&](auto&& result) {
    return [&stream, result](stream_ref, auto...) {
      EXPECT_EQ(cuStreamBeginCapture(stream.view().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
      EXPECT_TRUE(is_capturing(stream.view(), 0));
      CUgraph graph = nullptr;
      EXPECT_EQ(cuStreamEndCapture(stream.view().value(), &graph), CUDA_SUCCESS);
      cuGraphDestroy(graph);
      return result();
    };
  };
  alignas(default_alignment) static int memory = 0;
  const auto callback =
      std::make_shared<callback_memory_resource>(program([]() -> void* { return &memory; }), program([] {}));
  set_per_device_resource(0, callback);
  deallocate(allocate(1000, stream.view()), stream.view());
  const auto nothing = std::make_shared<program_resource>(std::make_shared<cuda_memory_resource>(0));
  nothing->has_memory = [] { return false; };
  const auto ask = [answer = program([] { return false; })](std::size_t, stream_ref on, std::size_t) {
    return answer(on);
  };
  set_per_device_resource(0, std::make_shared<failure_callback_resource_adaptor>(nothing, ask));
  EXPECT_THROW(allocate(1000, stream.view()), out_of_memory);
}

TEST_F(caller_locks, are_released_where_a_resource_is_yet_to_be_made) {
  reset_all_device_resources();
  deallocate(allocate(1000));
  EXPECT_EQ(releases(), 2);
}

TEST_F(caller_locks, are_released_for_a_free_after_all_work) {
  warm_pool();
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  deallocate(allocate(1000), stream);
  EXPECT_EQ(releases(), 1);
  void* const shared = allocate(1000);
  releases();
  client_share(shared);
  deallocate(shared);
  EXPECT_EQ(releases(), 1);
}

TEST_F(caller_locks, no_resource_ends_under_them) {
  bool has_ended = false;
  const auto at_end = [&] {
    EXPECT_FALSE(is_held_);
    has_ended = true;
  };
  set_per_device_resource(0, std::make_shared<mortal_resource>(warm_pool(), at_end));
  void* const block = allocate(1000);
  reset_resources();
  EXPECT_FALSE(has_ended);
  releases();
  EXPECT_TRUE(deallocate(block));
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(releases(), 1);
}

TEST_F(caller_locks, are_taken_back_before_an_exception_leaves) {
  use_pool(1 * MiB);
  EXPECT_THROW(allocate(2 * MiB), out_of_memory);
  EXPECT_TRUE(is_held_);
  EXPECT_THROW(client_allocate(client_, 2, 256, {}, {release, acquire}), std::out_of_range);
  EXPECT_THROW(client_allocate(-1, 0, 256, {}, {release, acquire}), std::out_of_range);
  EXPECT_TRUE(is_held_);
}

TEST_F(caller_locks, a_pointer_that_is_unknown_is_reported_without_them) {
  captured_stderr output;
  int local = 0;
  EXPECT_FALSE(deallocate(&local));
  EXPECT_TRUE(deallocate(nullptr));
  EXPECT_EQ(releases(), 1);
}

TEST_F(caller_locks, are_passed_in_c_as_two_functions) {
  warm_pool();
  const auto pair = [] {
    void* const block =
        cenote_allocate_holding_or_throw(cenote_register_client("c"), 0, 1000, nullptr, release, acquire);
    EXPECT_EQ(usage_of("c").bytes, 1000u);
    EXPECT_EQ(cenote_deallocate_holding(block, nullptr, release, acquire), CENOTE_OK);
    return block;
  };
  void* const block = pair();
  EXPECT_EQ(releases(), 0);
  EXPECT_EQ(cenote_deallocate_holding(block, nullptr, release, acquire), CENOTE_UNKNOWN_POINTER);
  EXPECT_EQ(cenote_last_status(), CENOTE_UNKNOWN_POINTER);
  EXPECT_THROW(cenote_allocate_holding_or_throw(-1, 0, 1000, nullptr, release, acquire), std::out_of_range);
}

}  // namespace
}  // namespace cenote::test
