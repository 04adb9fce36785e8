// Resources that stand on each other: how many may, and what they may be given by what is under them.
#include <functional>
#include <stdexcept>

#include "cenote/cenote.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

using resource_ptr = std::shared_ptr<memory_resource>;

class resource_stack : public simulated_device {};

struct over {
  const char* kind;
  std::function<resource_ptr(resource_ptr upstream)> make;
};

template <class Adaptor>
over adaptor(const char* kind) {
  return {kind, [](resource_ptr upstream) { return std::make_shared<Adaptor>(std::move(upstream)); }};
}

const std::vector<over>& all_that_stand_on_another() {
  static const std::vector<over> all = {
      {"pool", [](auto under) { return std::make_shared<pool_memory_resource>(under, 0); }},
      {"arena", [](auto under) { return std::make_shared<arena_memory_resource>(under, 1 * MiB); }},
      {"fixed_size", [](auto under) { return std::make_shared<fixed_size_memory_resource>(under, 4 * KiB, 1); }},
      {"binning", [](auto under) { return std::make_shared<binning_memory_resource>(under, 10, 12); }},
      {"aligned", [](auto under) { return std::make_shared<aligned_resource_adaptor>(under, 4 * KiB); }},
      {"limiting", [](auto under) { return std::make_shared<limiting_resource_adaptor>(under, GiB); }},
      {"failure_callback",
       [](auto under) {
         return std::make_shared<failure_callback_resource_adaptor>(
             under, [](std::size_t, stream_ref, std::size_t) { return false; });
       }},
      adaptor<guard_resource_adaptor>("guard"),
      adaptor<prefetch_resource_adaptor>("prefetch"),
      adaptor<statistics_resource_adaptor>("statistics"),
      adaptor<thread_safe_resource_adaptor>("thread_safe"),
      adaptor<tracking_resource_adaptor>("tracking"),
  };
  return all;
}

std::string refusal(const std::function<void()>& refuses) {
  try {
    refuses();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was refused";
}

testing::AssertionResult says(const std::string& message, const std::string& words) {
  if (message.find(words) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << message << "' does not say '" << words << "'";
}

TEST_F(resource_stack, is_of_128_resources_at_most_whatever_is_put_on) {
  resource_ptr resource = std::make_shared<cuda_memory_resource>(0);
  while (resource->depth() < memory_resource::max_depth)
    resource = std::make_shared<statistics_resource_adaptor>(resource);
  for (const over& each : all_that_stand_on_another()) {
    EXPECT_TRUE(says(refusal([&] { each.make(resource); }),
                     std::string(each.kind) + " cannot stand on so many resources: at most 128"));
  }
  resource->deallocate({}, resource->allocate({}, 1000), 1000);
  resource->check();
}

TEST_F(resource_stack, of_a_programs_own_resources_counts_too) {
  class passing final : public memory_resource {  // which does not say how deep it stands
   public:
    explicit passing(resource_ptr upstream) : memory_resource(upstream->device()), upstream_(std::move(upstream)) {}
    std::string kind() const override { return "passing"; }
    resource_ptr upstream() const override { return upstream_; }

   private:
    void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override {
      return upstream_->try_allocate(stream, bytes, alignment);
    }
    void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept override {
      upstream_->deallocate(stream, pointer, bytes, alignment);
    }
    resource_ptr upstream_;
  };
  resource_ptr resource = std::make_shared<cuda_memory_resource>(0);
  EXPECT_TRUE(says(refusal([&] {
                     for (int i = 0; i < 1000; ++i)
                       resource = std::make_shared<statistics_resource_adaptor>(std::make_shared<passing>(resource));
                   }),
                   "cannot stand on so many"));
}

TEST_F(resource_stack, of_bins_in_bins_ends_too) {
  const resource_ptr device = std::make_shared<cuda_memory_resource>(0);
  resource_ptr inner = device;
  int bins = 0;
  EXPECT_TRUE(says(refusal([&] {
                     for (; bins < 1000; ++bins) {
                       const auto binning = std::make_shared<binning_memory_resource>(device);
                       binning->add_bin(1 * MiB, inner);
                       inner = binning;
                     }
                   }),
                   "the resource of a bin is"));
  EXPECT_GE(bins, 1);
  inner = device;
  EXPECT_TRUE(says(refusal([&] {
                     for (int i = 0; i < 1000; ++i) inner = std::make_shared<binning_memory_resource>(inner);
                   }),
                   "binning cannot stand on so many resources"));
}

TEST_F(resource_stack, two_binning_resources_cannot_be_bins_of_each_other) {
  const resource_ptr device = std::make_shared<cuda_memory_resource>(0);
  const auto one = std::make_shared<binning_memory_resource>(device);
  const auto other = std::make_shared<binning_memory_resource>(std::make_shared<statistics_resource_adaptor>(device));
  other->add_bin(1 * MiB, one);
  EXPECT_TRUE(says(refusal([&] { one->add_bin(1 * MiB, other); }), "the resource of a bin is"));
}

TEST_F(resource_stack, specification_of_too_many_words_is_refused_before_anything_is_made) {
  for (const int words : {129, 100'000}) {
    std::string text;
    for (int i = 1; i < words; ++i) text += "statistics|";
    EXPECT_TRUE(says(refusal([&] { make_resource(text + "cuda", 0); }), std::to_string(words) + " words"));
  }
}

/// What a program's function gives: an address, whether anything can be there or not.
struct given {
  const char* what;
  std::uintptr_t address;
};

constexpr given impossible[] = {
    {"an odd address", 0x10000001},
    {"an address that is aligned as malloc's are", 0x10000010},
    {"an address that is aligned to half of what is needed", 0x10000080},
    {"a block that ends beyond the last address", ~std::uintptr_t{0} - 255},
};

TEST_F(resource_stack, address_that_cannot_be_a_blocks_is_refused_and_given_back) {
  for (const given& each : impossible) {
    const auto pointer = reinterpret_cast<void*>(each.address);  // NOLINT: never touched
    int out = 0;
    const auto source = std::make_shared<callback_memory_resource>(
        0,
        [&](stream_ref, std::size_t) {
          ++out;
          return pointer;
        },
        [&](stream_ref, void* freed, std::size_t) {
          EXPECT_EQ(freed, pointer);
          --out;
        });
    const auto refused = [&](memory_resource& resource) {
      const std::string message = refusal([&] { resource.allocate({}, 1000); });
      EXPECT_TRUE(says(message, "callback")) << resource.kind() << ", " << each.what;
      EXPECT_TRUE(says(message, format_address(pointer))) << resource.kind();
      EXPECT_EQ(out, 0) << resource.kind();
      resource.check();
    };
    refused(*source);
    for (const over& one : all_that_stand_on_another()) {
      const std::string kind = one.kind;
      if (kind == "arena" || kind == "fixed_size") {  // which take memory when they are made
        EXPECT_TRUE(says(refusal([&] { one.make(source); }), format_address(pointer))) << kind;
        EXPECT_EQ(out, 0) << kind;
      } else if (kind != "aligned") {  // which asks for more than is needed, and finds what is aligned in it
        refused(*one.make(source));
      }
    }
  }
}

}  // namespace
}  // namespace cenote::test
