#include "cenote/surface/specification.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include "cenote/ground/quoted.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class specification : public simulated_device {};

/// The message with which `text` is refused; empty if it is not.
std::string refusal(const char* text) {
  try {
    make_resource(text, 0);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

TEST_F(specification, a_stack_is_described_as_it_was_specified) {
  for (const char* text : {"cuda", "managed", "pinned", "virtual", "virtual:ipc=true", "virtual:ipc=false",
                           "virtual:rdma=true", "async", "async:initial=4MiB,release_threshold=1GiB,ipc=true",
                           "pool:initial=1MiB,max=8MiB | cuda", "statistics | pool:initial=1MiB | async",
                           "statistics | statistics | pool:initial=1000KiB | pool:initial=0 | managed"}) {
    EXPECT_EQ(describe(*make_resource(text, 0)), text);
  }
}

TEST_F(specification, blanks_do_not_matter) {
  EXPECT_EQ(describe(*make_resource("  statistics|pool: initial = 1 MiB , max=2MiB|\tcuda\n", 0)),
            "statistics | pool:initial=1MiB,max=2MiB | cuda");
  EXPECT_EQ(describe(*make_resource("pool:tight=1,idle=2s|virtual", 0)), "pool:tight=true,idle=2000ms | virtual");
  for (const char* time : {"", "3", "0s", "-1s", "1.5s", "3min", "s", "99999999999999999999ms", "9999999999999s"}) {
    EXPECT_THROW(make_resource(std::string("pool:idle=") + time, 0), std::invalid_argument) << time;
  }
}

TEST_F(specification, a_chain_that_ends_with_a_pool_stands_on_virtual_memory) {
  EXPECT_EQ(describe(*make_resource("pool", 0)), "pool | virtual");
  EXPECT_EQ(describe(*make_resource("statistics | pool:max=8MiB", 1)), "statistics | pool:max=8MiB | virtual");
  EXPECT_EQ(make_resource("pool", 0)->state().held, 0u);
}

TEST(specification_without_virtual_memory, takes_plain_memory_for_a_pool_and_makes_virtual_all_the_same) {
  setenv("CENOTE_SIM", "memory=1GiB,virtual_memory=0", 1);
  EXPECT_EQ(describe(*make_resource("pool", 0)), "pool | cuda");
  EXPECT_EQ(specification_words("pool", 0), (std::vector<std::string>{"pool", "cuda"}));
  EXPECT_EQ(specification_words("pool"), (std::vector<std::string>{"pool", "virtual"}));
  const auto pool = make_resource("pool:max=8MiB | virtual", 0);
  EXPECT_EQ(describe(*pool), "pool:max=8MiB | virtual");
  EXPECT_EQ(pool->state().held, 0u) << "as over pages, nothing is held before it is used";
  const call_count chunks("cuMemAlloc");
  pool->deallocate({}, pool->allocate({}, 1000), 1000);
  EXPECT_EQ(chunks.value(), 1);
  const auto plain = make_resource("virtual:rdma=true", 0);
  plain->deallocate({}, plain->allocate({}, 1000), 1000);
  EXPECT_THROW(make_resource("virtual:ipc=true", 0), std::runtime_error) << "nobody could export it";
}

TEST_F(specification, any_other_chain_that_needs_an_upstream_stands_on_cuda) {
  for (const char* const text : {"statistics", "arena:size=1MiB", "fixed_size:preallocate=0", "binning", "guard",
                                 "pool:initial=0 | arena:size=1MiB"}) {
    EXPECT_TRUE(describe(*make_resource(text, 1)).ends_with(" | cuda")) << text;
  }
}

TEST_F(specification, a_percentage_is_one_of_the_devices_free_memory) {
  const std::size_t expected = align_down(device_memory_info(1).free_bytes / 4, 256);
  EXPECT_EQ(make_resource("pool:initial=25% | cuda", 1)->state().held, expected);
  EXPECT_EQ(make_resource("pool:initial=25%", 1)->state().held, align_down(expected, 2 * MiB)) << "whole pages";
  EXPECT_EQ(make_resource("pool:initial=0%", 1)->state().held, 0u);
}

TEST_F(specification, the_resource_is_one_of_the_device_that_was_asked_for) {
  for (int device = 0; device < 2; ++device) {
    const auto resource = make_resource("statistics | pool:initial=1MiB | cuda", device);
    EXPECT_EQ(resource->device(), device);
    void* const block = resource->allocate({}, 256);
    EXPECT_EQ(device_of(block, device), device);
    resource->deallocate({}, block, 256);
  }
}

TEST_F(specification, a_refusal_names_the_wrong_word_and_the_known_ones) {
  struct row {
    const char* text;
    std::vector<const char*> named;
  };
  const row rows[] = {
      {"pol", {"'pol' is not a known resource", "cuda, managed, pinned, async, async_managed, virtual, system"}},
      {"Pool", {"'Pool' is not a known resource"}},
      {"callback", {"'callback' cannot be made from a text, as it calls functions of the program"}},
      {"statistics | failure_callback:max_tries=64 | cuda", {"'failure_callback' cannot be made from a text"}},
      {"pool | async_view", {"'async_view' cannot be made from a text, as it is a view of a pool"}},
      {"binning:min=18,max=20,added=1 | cuda",
       {"bins that a program has added to 'binning' cannot be made from a text"}},
      {"", {"a resource is missing", "known are: cuda"}},
      {"statistics | ", {"a resource is missing"}},
      {"| cuda", {"a resource is missing"}},
      {"pool:initail=1MiB", {"'initail' is not a parameter of 'pool'", "known are: initial, max"}},
      {"pool:", {"'' is not a parameter of 'pool'", "initial, max"}},
      {"cuda:x=1", {"'x' is not a parameter of 'cuda'", "it has none"}},
      {"pool:initial", {"'initial' of 'pool' needs a value"}},
      {"pool:initial=", {"'initial' of 'pool' needs a value"}},
      {"async:ipc=", {"'ipc' of 'async' needs a value"}},
      {"logging:file= | cuda", {"'file' of 'logging' needs a value"}},
      {"pool:initial=+5% | cuda", {"'+5%' is no size"}},
      {"pool:initial=0x10% | cuda", {"'0x10%' is no size"}},
      {"pool:initial=12,5% | cuda", {"'5%' is not a parameter of 'pool'"}},
      {"pool:initial=lots", {"'lots' is no size for 'initial'", "512MiB"}},
      {"pool:initial=101%", {"'101%' is no size for 'initial'"}},
      {"pool:initial=-1%", {"'-1%' is no size"}},
      {"pool:initial=nan%", {"'nan%' is no size"}},
      {"pool:max=1MiB,max=2MiB", {"'max' of 'pool' is given twice"}},
      {"async:ipc=maybe", {"'maybe' is neither true nor false for 'ipc'"}},
      {"cuda | pool", {"'cuda' takes its memory from the driver", "nothing can stand under it"}},
      {"pool | async | cuda", {"'async' takes its memory from the driver"}},
  };
  for (const row& r : rows) {
    const std::string message = refusal(r.text);
    EXPECT_FALSE(message.empty()) << "'" << r.text << "' was accepted";
    for (const char* const word : r.named) {
      EXPECT_NE(message.find(word), std::string::npos) << r.text << ": " << message;
    }
  }
}

TEST_F(specification, nothing_is_made_where_a_word_is_wrong) {
  const call_count allocations("cuMemAlloc");
  const call_count pools("cuMemPoolCreate");
  const call_count pages("cuMemCreate");
  for (const char* text : {"nonsense | pool:initial=1MiB | async", "limiting:limit=lots | pool:initial=1MiB | async",
                           "tracking:capture_stacks=maybe | pool:initial=1MiB", "pool:max= | pool:initial=1MiB"}) {
    EXPECT_FALSE(refusal(text).empty()) << text;
  }
  EXPECT_EQ(allocations.value() + pools.value() + pages.value(), 0);
}

TEST_F(specification, a_device_that_is_not_there_is_out_of_range) {
  EXPECT_THROW(make_resource("cuda", 2), std::out_of_range);
  EXPECT_THROW(make_resource("cuda", -1), std::out_of_range);
}

TEST_F(specification, every_known_kind_is_listed_with_its_parameters) {
  const std::string known = known_specifications();
  for (const char* line :
       {"cuda\n", "managed\n", "pinned\n", "async:initial=…,release_threshold=…,ipc=…,fabric=…,peers=…\n",
        "pool:initial=…,max=…,tight=…,idle=…\n", "statistics\n", "logging:file=…\n"}) {
    EXPECT_NE(known.find(line), std::string::npos) << line;
  }
}

TEST_F(specification, words_are_told_without_a_device) {
  const std::vector<std::string> words{"statistics", "pool:initial=50%", "virtual"};
  EXPECT_EQ(specification_words(" statistics|pool:initial=50% "), words);
  EXPECT_EQ(specification_words("arena"), (std::vector<std::string>{"arena", "cuda"}));
  EXPECT_EQ(specification_words("async:peers=0,1"), std::vector<std::string>{"async:peers=0,1"});
}

TEST_F(specification, value_in_quotes_may_hold_what_separates_words) {
  const std::vector<std::string> words{R"(logging:file="a,b | ""c"".csv")", "cuda"};
  EXPECT_EQ(specification_words(words[0]), words);
  EXPECT_EQ(quoted("a,b | \"c\".csv", ",|"), R"("a,b | ""c"".csv")");
  EXPECT_EQ(unquoted(quoted("a,b | \"c\".csv", ",|")), "a,b | \"c\".csv");
  for (const char* const plain : {"", "a.csv", "a=b:c"}) EXPECT_EQ(quoted(plain, ",|"), plain);
  for (const char* const wrong : {"\"", "\"a", "a\"", "\"a\"b\"", "a\"b"}) {
    EXPECT_THROW(unquoted(wrong), std::invalid_argument) << wrong;
  }
}

}  // namespace
}  // namespace cenote::test
