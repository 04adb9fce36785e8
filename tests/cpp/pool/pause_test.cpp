// Pauses: the device has its memory back, and every address and byte is there again afterwards, whatever fails.
#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/paused_pool.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t paused_page_bytes = 2 * MiB;

constexpr const char* calls_of_a_pause[] = {
    "cuStreamCreate",     "cuCtxRecordEvent", "cuCtxSynchronize",  "cuEventCreate",       "cuEventRecord",
    "cuEventSynchronize", "cuMemcpyAsync",    "cuMemHostRegister", "cuStreamSynchronize", "cuMemUnmap",
    "cuMemCreate",        "cuMemMap",         "cuMemSetAccess",    "cuEventQuery",        "cuMemRelease"};

TEST_F(pauses, give_all_memory_back_and_keep_addresses_and_contents) {
  hold_some();
  for (int cycle = 0; cycle < 3; ++cycle) {
    const std::size_t held = pool_->pool_size();
    const std::size_t given_back = pool_->pause();
    EXPECT_EQ(given_back, held);
    EXPECT_TRUE(pool_->is_paused());
    EXPECT_EQ(pool_->pool_size(), 0u);
    EXPECT_EQ(mapped_bytes(), 0u);
    pool_->check();
    const std::size_t needed = pool_->paused_bytes();
    EXPECT_EQ(pool_->resume(), needed);
    EXPECT_FALSE(pool_->is_paused());
    EXPECT_EQ(pool_->pool_size(), needed);
    pool_->check();
    expect_contents();
  }
  hold(MiB);
  expect_contents();
}

TEST_F(pauses, wait_for_work_that_is_queued_before) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  for (int i = 0; i < 20; ++i) hold(4 * MiB, stream);
  pool_->pause();
  pool_->resume();
  expect_contents();
}

TEST_F(pauses, keep_nothing_or_a_byte_where_that_is_said) {
  hold_some();
  pool_->pause("fill:7");
  EXPECT_EQ(pinned_chunks::get().kept_bytes(), 0u);
  pool_->resume();
  for (held& each : held_) each.value = 7;
  expect_contents();
  pool_->pause("nothing");
  pool_->resume();
  pool_->check();
}

TEST_F(pauses, keep_pinned_memory_for_the_next_one_up_to_a_bound) {
  hold_some();
  pool_->pause();
  pool_->resume();
  EXPECT_EQ(pinned_chunks::get().kept_bytes(), pinned_chunks::least_bytes);
  const call_count pinned("cuMemHostRegister");
  pool_->pause();
  pool_->resume();
  EXPECT_EQ(pinned.value(), 0);
  EXPECT_EQ(pinned_chunks::get().keep_at_most(0), pinned_chunks::least_bytes);
  pool_->pause();
  pool_->resume();
  EXPECT_EQ(pinned_chunks::get().kept_bytes(), 0u);
  expect_contents();
}

TEST_F(pauses, refuse_what_is_wrong_and_change_nothing) {
  hold_some();
  EXPECT_THROW(pool_->resume(), std::runtime_error);
  for (const char* const wrong : {"", "hosts", "fill:", "fill:256", "fill:-1", "fill:1x"}) {
    EXPECT_THROW(pool_->pause(wrong), std::invalid_argument) << wrong;
  }
  EXPECT_FALSE(pool_->is_paused());
  expect_contents();
  pool_->pause();
  EXPECT_THROW(pool_->pause(), std::runtime_error);
  EXPECT_THROW(pool_->pin(held_[0].at, pin_kind::exported), std::runtime_error);
  EXPECT_TRUE(pool_->is_paused());
  pool_->resume();
  expect_contents();
  pool_memory_resource over_chunks(std::make_shared<cuda_memory_resource>(0), 0);
  EXPECT_THROW(over_chunks.pause(), std::logic_error);
  EXPECT_THROW(over_chunks.resume(), std::logic_error);
  EXPECT_FALSE(over_chunks.is_paused());
}

TEST_F(pauses, name_the_blocks_that_others_know) {
  hold_some();
  pool_->pin(held_[1].at, pin_kind::registered);
  try {
    pool_->pause();
    FAIL() << "a registered block was paused";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("(registered)"), std::string::npos) << error.what();
  }
  pool_->unpin(held_[1].at, pin_kind::registered);
  pool_->pin(held_[2].at, pin_kind::captured);
  pool_->pause();
  pool_->resume();
  pool_->unpin(held_[2].at, pin_kind::captured);
  expect_contents();
}

TEST_F(pauses, refuse_copies_until_the_memory_is_there_again) {
  hold(3 * MiB);
  const auto other = make_pool();
  auto* const elsewhere = static_cast<std::byte*>(other->allocate({}, KiB));
  pool_->pause();
  std::byte* const paused = held_.back().at + MiB;
  EXPECT_THROW(copy_async(elsewhere, paused, 100, {}, 0), std::runtime_error);
  EXPECT_THROW(copy_async(paused, elsewhere, 100, {}, 0), std::runtime_error);
  EXPECT_THROW(fill_async(paused, 7, 100, {}, 0), std::runtime_error);
  fill_async(elsewhere, 7, 100, {}, 0);
  copy_async(elsewhere + 200, elsewhere, 100, {}, 0);
  pool_->resume();
  copy_async(elsewhere, paused, 100, {}, 0);
  expect_contents();
  other->deallocate({}, elsewhere, KiB);
}

TEST_F(pauses, refuse_allocations_take_frees_and_leave_other_pools_alone) {
  hold_some();
  hold(8 * MiB);
  pool_->pause();
  EXPECT_THROW(pool_->allocate({}, 300), std::runtime_error);
  EXPECT_THROW(pool_->allocate({}, 64 * MiB), std::runtime_error);
  const auto other = make_pool();
  void* const block = other->allocate({}, 8 * MiB);
  other->deallocate({}, block, 8 * MiB);
  const std::size_t paused = pool_->paused_bytes();
  pool_->deallocate({}, held_.back().at, held_.back().bytes);
  held_.pop_back();
  pool_->deallocate({}, held_.front().at, held_.front().bytes);
  held_.erase(held_.begin());
  EXPECT_EQ(pool_->trim(), 0u);
  EXPECT_LE(pool_->resume(), paused - 6 * MiB) << "the pages of what was freed do not come back";
  pool_->check();
  expect_contents();
  hold(8 * MiB);
  hold(300);
  expect_contents();
}

TEST_F(pauses, end_with_their_pool) {
  hold_some();
  pool_->pause();
  held_.clear();
  captured_stderr quiet;
  pool_.reset();
}

TEST_F(pauses, say_how_much_is_missing_and_stay_as_they_are) {
  for (int i = 0; i < 16; ++i) hold(4 * MiB);
  pool_->pause();
  const std::size_t rest = align_down(device_memory_info(0).free_bytes - 40 * MiB, paused_page_bytes);
  void* const others = device_allocate(0, rest);
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      pool_->resume();
      FAIL() << "there was not enough memory";
    } catch (const out_of_memory& error) {
      EXPECT_NE(std::string(error.what()).find("are missing"), std::string::npos) << error.what();
    }
    EXPECT_TRUE(pool_->is_paused());
    EXPECT_EQ(pool_->pool_size(), 0u);
  }
  device_free(0, others);
  pool_->resume();
  pool_->check();
  expect_contents();
}

TEST_F(pauses, take_what_lies_idle_in_other_pools_to_resume) {
  for (int i = 0; i < 16; ++i) hold(4 * MiB);
  pool_->pause();
  const auto other = make_pool();
  const std::size_t rest = align_down(device_memory_info(0).free_bytes - 40 * MiB, paused_page_bytes);
  void* const all = other->allocate({}, rest);
  other->deallocate({}, all, rest);
  synchronize_device(0);
  pool_->resume();
  expect_contents();
}

TEST_F(pauses, that_can_neither_be_done_nor_undone_are_resumed_all_the_same) {
  hold_some();
  pool_->pause();
  pool_->resume();  // nothing is free any more that pausing would unmap first
  captured_stderr quiet;
  cenote_sim_fail("cuMemUnmap", 3, CUDA_ERROR_UNKNOWN);
  cenote_sim_fail_from("cuMemMap", 1, 6, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(pool_->pause(), cuda_error);
  cenote_sim_fail("cuMemMap", 0, 0);
  EXPECT_TRUE(pool_->is_paused());
  EXPECT_THROW(pool_->allocate({}, 300), std::runtime_error);
  pool_->check();
  pool_->deallocate({}, held_.back().at, held_.back().bytes);
  held_.pop_back();
  pool_->resume();
  pool_->check();
  expect_contents();
}

TEST_F(pauses, are_resumed_with_pages_that_could_not_be_taken_back_from_an_attempt_that_failed) {
  for (int i = 0; i < 5; ++i) hold(2 * MiB);
  pool_->pause();
  const std::size_t needed = pool_->paused_bytes();
  captured_stderr quiet;
  for (int attempt = 0; attempt < 2; ++attempt) {
    cenote_sim_fail("cuMemCreate", attempt == 0 ? 4 : 2, CUDA_ERROR_UNKNOWN);
    cenote_sim_fail_from("cuMemUnmap", 1, 4, CUDA_ERROR_UNKNOWN);
    EXPECT_THROW(pool_->resume(), cuda_error);
    cenote_sim_fail("cuMemUnmap", 0, 0);
    cenote_sim_fail("cuMemCreate", 0, 0);
    EXPECT_TRUE(pool_->is_paused());
    EXPECT_EQ(pool_->pool_size(), 4 * MiB) << "two pages stay";
    EXPECT_EQ(pool_->paused_bytes(), needed - 4 * MiB);
    pool_->check();
  }
  pool_->deallocate({}, held_.front().at, held_.front().bytes);
  held_.erase(held_.begin());
  pool_->resume();
  pool_->check();
  EXPECT_EQ(mapped_bytes(), pool_->pool_size());
  expect_contents();
}

TEST_F(pauses, of_two_threads_one_pauses_and_one_resumes) {
  hold_some();
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> done{0};
    std::atomic<int> refused{0};
    const auto both = [&](auto&& action) {
      const auto attempt = [&] {
        try {
          action();
          ++done;
        } catch (const std::runtime_error&) {
          ++refused;
        }
      };
      std::thread one(attempt);
      std::thread other(attempt);
      one.join();
      other.join();
    };
    both([&] { pool_->pause(); });
    both([&] { pool_->resume(); });
    EXPECT_EQ(done, 2);
    EXPECT_EQ(refused, 2);
  }
  expect_contents();
}

TEST_F(pauses, let_threads_allocate_and_free_beside_them) {
  hold_some();
  std::atomic<bool> is_over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      const cuda_stream stream(0, cuda_stream::kind::non_blocking);
      for (std::size_t bytes = 256; !is_over; bytes = bytes % MiB + 256) {
        try {
          void* const block = pool_->allocate(stream, bytes);
          std::this_thread::yield();
          pool_->deallocate(stream, block, bytes);
        } catch (const std::runtime_error&) {
          std::this_thread::yield();
        }
      }
    });
  }
  for (int round = 0; round < 30; ++round) {
    pool_->pause();
    EXPECT_EQ(pool_->pool_size(), 0u);
    std::this_thread::yield();
    pool_->resume();
  }
  is_over = true;
  for (std::thread& each : threads) each.join();
  pool_->check();
  expect_contents();
}

TEST_F(pauses, are_refused_while_work_is_being_captured) {
  hold_some();
  const device_scope scope(0);
  CUstream stream = nullptr;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_DEFAULT), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  EXPECT_THROW(pool_->pause(), std::runtime_error);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamDestroy(stream), CUDA_SUCCESS);
  EXPECT_FALSE(pool_->is_paused());
  pool_->pause();
  pool_->resume();
  expect_contents();
}

TEST_F(pauses, have_waited_for_all_work_however_captures_begin_beside_them) {
  for (const std::size_t bytes : {300ul, 3 * MiB}) hold(bytes);
  synchronize_device(0);
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  std::atomic<bool> is_over{false};
  std::thread captures([&] {
    while (!is_over) {
      capture_begins(0);
      static_cast<void>(capture_ended(0));
    }
  });
  int paused = 0;
  for (int round = 0; round < 200; ++round) {
    for (const held& each : held_) fill_async(each.at, each.value, each.bytes, stream, 0);
    try {
      pool_->pause("nothing");
      ++paused;
      EXPECT_EQ(cenote_sim_pending(), 0u);
      pool_->resume();
    } catch (const std::runtime_error&) {
      stream.synchronize();
    }
  }
  is_over = true;
  captures.join();
  EXPECT_GT(paused, 0);
}

INSTANTIATE_TEST_SUITE_P(each, pauses_in, testing::Values("host", "peer:1", "file:" + testing::TempDir()),
                         [](const auto& tested) { return tested.param.substr(0, 4); });

TEST_P(pauses_in, leave_all_as_it_was_whichever_call_of_pausing_fails) {
  hold_some();
  captured_stderr quiet;
  for (const char* const name : calls_of_a_pause) {
    bool was_reached = true;
    for (int nth = 1; was_reached; ++nth) {
      cenote_sim_fail(name, nth, CUDA_ERROR_UNKNOWN);
      const call_count made(name);
      const std::string where = std::string(name) + ", call " + std::to_string(nth);
      try {
        pool_->pause(GetParam());
        was_reached = made.value() >= nth;
        cenote_sim_fail(name, 0, 0);
        ASSERT_TRUE(pool_->is_paused()) << where;
        pool_->resume();
      } catch (const cuda_error&) {
        cenote_sim_fail(name, 0, 0);
        ASSERT_FALSE(pool_->is_paused()) << where;
        EXPECT_THROW(pool_->resume(), std::runtime_error);
      }
      pool_->check();
      void* const block = pool_->allocate({}, 300);
      pool_->deallocate({}, block, 300);
      expect_contents();
      ASSERT_FALSE(HasFailure()) << where;
    }
  }
}

TEST_P(pauses_in, stay_as_they_are_whichever_call_of_resuming_fails) {
  hold_some();
  pool_->pause(GetParam());
  captured_stderr quiet;
  for (const char* const name : calls_of_a_pause) {
    bool was_reached = true;
    for (int nth = 1; was_reached; ++nth) {
      cenote_sim_fail(name, nth, CUDA_ERROR_UNKNOWN);
      const call_count made(name);
      const std::string where = std::string(name) + ", call " + std::to_string(nth);
      try {
        pool_->resume();
        was_reached = made.value() >= nth;
        cenote_sim_fail(name, 0, 0);
        expect_contents();
        pool_->pause(GetParam());
      } catch (const cuda_error&) {
        cenote_sim_fail(name, 0, 0);
        EXPECT_EQ(pool_->pool_size(), 0u) << where;
      }
      ASSERT_TRUE(pool_->is_paused()) << where;
      expect_kept();
      pool_->check();
      ASSERT_FALSE(HasFailure()) << where;
    }
  }
  pool_->resume();
  expect_contents();
}

TEST_P(pauses_in, keep_contents_of_many_chunks) {
  for (int i = 0; i < 9; ++i) hold(11 * MiB + 300);
  hold(80 * MiB);
  for (int cycle = 0; cycle < 2; ++cycle) {
    pool_->pause(GetParam());
    EXPECT_EQ(mapped_bytes(), GetParam() == "peer:1" ? 180 * MiB : 0);
    pool_->deallocate({}, held_.back().at, held_.back().bytes);
    held_.pop_back();
    pool_->resume();
    EXPECT_EQ(mapped_bytes(), pool_->pool_size());
    expect_contents();
    hold(80 * MiB);
  }
}

TEST_F(pauses, keep_contents_on_several_pages_of_another_device) {
  hold(200 * MiB);
  hold(101 * MiB);
  const std::size_t before = live_objects().handles;
  pool_->pause("peer:1");
  EXPECT_EQ(mapped_bytes(), 302 * MiB);
  pool_->resume();
  expect_contents();
  EXPECT_LE(live_objects().handles, before);
}

TEST_F(pauses, bring_small_pages_in_a_row_back_as_large_ones) {
  hold_some();  // so that their ends are not those of a large page
  void* const large = pool_->allocate({}, 2100 * MiB);
  const std::size_t before = live_objects().handles;
  pool_->pause("nothing");
  pool_->resume();
  pool_->check();
  EXPECT_LE(live_objects().handles, before / 2 + 2);
  for (const held& each : held_) fill_async(each.at, each.value, each.bytes, {}, 0);
  pool_->deallocate({}, large, 2100 * MiB);
  pool_->trim(0, true);
  pool_->check();
  EXPECT_LE(pool_->pool_size(), 32 * MiB);
  pool_->pause();
  pool_->resume();
  expect_contents();
}

TEST_F(pauses, refuse_places_that_are_not_there) {
  hold_some();
  EXPECT_THROW(pool_->pause("file:/no/such/folder"), std::runtime_error);
  EXPECT_THROW(pool_->pause("peer:0"), std::invalid_argument);
  EXPECT_THROW(pool_->pause("peer:63"), std::out_of_range);
  for (const char* const wrong : {"file", "file:", "peer", "peer:", "peer:x", "peer:64", "host:1"}) {
    EXPECT_THROW(pool_->pause(wrong), std::invalid_argument) << wrong;
  }
  void* const others = device_allocate(1, align_down(device_memory_info(1).free_bytes, paused_page_bytes));
  EXPECT_THROW(pool_->pause("peer:1"), out_of_memory);
  device_free(1, others);
  EXPECT_FALSE(pool_->is_paused());
  expect_contents();
}

}  // namespace
}  // namespace cenote::test
