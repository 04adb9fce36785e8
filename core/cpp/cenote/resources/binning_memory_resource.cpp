#include "cenote/resources/binning_memory_resource.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>

#include "cenote/ground/free_correction.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"

namespace cenote::inline v1 {
namespace {

constexpr int largest_exponent = 62;
constexpr std::size_t any_size = max_allocation;
constexpr int depth_of_bins = 16;  // a bin's resource may stand on so many resources more than the upstream does

void check_exponents(int least, int most) {
  if (least >= 0 && least <= most && most <= largest_exponent) return;
  throw std::invalid_argument(
      "bins need 0 <= min_size_exponent <= max_size_exponent <= " + std::to_string(largest_exponent) + ", not " +
      std::to_string(least) + " and " + std::to_string(most));
}

/// A free of an unknown pointer or of a wrong size must not wrap a count.
void subtract(std::atomic<std::size_t>& count, std::size_t amount) noexcept {
  std::size_t live = count;
  while (!count.compare_exchange_weak(live, live - std::min(live, amount))) {
  }
}

}  // namespace

binning_memory_resource::binning_memory_resource(std::shared_ptr<memory_resource> upstream)
    : memory_resource(upstream, "binning", depth_of_bins), upstream_(std::move(upstream)) {
  bins_.push_back(std::unique_ptr<bin>(new bin{any_size, upstream_, {}}));
}

binning_memory_resource::binning_memory_resource(std::shared_ptr<memory_resource> upstream, int min_size_exponent,
                                                 int max_size_exponent)
    : binning_memory_resource(std::move(upstream)) {
  check_exponents(min_size_exponent, max_size_exponent);
  exponents_ = {min_size_exponent, max_size_exponent};
  for (int exponent = min_size_exponent; exponent <= max_size_exponent; ++exponent) add_bin(std::size_t{1} << exponent);
}

void binning_memory_resource::add_bin(std::size_t bytes, std::shared_ptr<memory_resource> resource) {
  if (bytes == 0 || bytes > max_allocation) {
    throw std::invalid_argument("a bin cannot be of " + std::to_string(bytes) + " bytes");
  }
  if (resource && resource->device() != device()) {
    throw std::invalid_argument("a resource of device " + std::to_string(resource->device()) +
                                " cannot be a bin on device " + std::to_string(device()));
  }
  for (std::shared_ptr<const memory_resource> under = resource; under; under = under->upstream()) {
    if (under.get() == this) throw std::invalid_argument("a resource cannot be a bin of what it takes its memory from");
  }
  if (resource && resource->depth() >= depth()) {
    throw std::invalid_argument("the resource of a bin is " + std::to_string(resource->depth()) +
                                " resources that stand on each other: at most " + std::to_string(depth() - 1) +
                                " can under this binning resource");
  }
  const std::size_t size = std::min(align_up(bytes, default_alignment), any_size - 1);
  std::shared_ptr<fixed_size_memory_resource> own;
  if (!resource) resource = own = std::make_shared<fixed_size_memory_resource>(upstream_, size, 0);
  auto added = std::unique_ptr<bin>(new bin{size, std::move(resource), std::move(own)});

  const std::unique_lock alone(mutex_);
  const auto place = std::ranges::lower_bound(bins_, size, {}, &bin::bytes);
  if ((*place)->bytes == size) return;
  if (const std::size_t live = (*place)->blocks_in_use; live != 0) {
    throw std::logic_error("a bin of " + format_bytes(size) + " would take over the sizes of " + std::to_string(live) +
                           " blocks in use, which could then not be freed; add bins before allocating");
  }
  bins_.insert(place, std::move(added));
}

binning_memory_resource::bin& binning_memory_resource::bin_for(std::size_t bytes) const {
  // A free may come with any size, also with one that nothing can have.
  return **std::ranges::lower_bound(bins_, std::min(bytes, any_size), {}, &bin::bytes);
}

void* binning_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  bin* chosen = nullptr;
  {
    const std::shared_lock together(mutex_);
    chosen = &bin_for(bytes);
    ++chosen->blocks_in_use;  // under the lock: add_bin must see it
  }
  void* pointer = nullptr;
  try {
    pointer = chosen->resource->try_allocate(stream, bytes, alignment);
  } catch (...) {
    --chosen->blocks_in_use;
    throw;
  }
  if (pointer == nullptr) {
    --chosen->blocks_in_use;
  } else if (!chosen->own) {
    chosen->bytes_in_use += align_up(bytes, default_alignment);
  }
  return pointer;
}

void binning_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                            std::size_t alignment) {
  bin* chosen = nullptr;
  {
    const std::shared_lock together(mutex_);
    chosen = &bin_for(bytes);
  }
  chosen->resource->deallocate(stream, pointer, bytes, alignment);
  const std::size_t freed = free_correction::of(pointer).value_or(bytes);
  if (freed == 0) return;  // of another bin, or of nobody
  subtract(chosen->blocks_in_use, 1);
  if (!chosen->own) subtract(chosen->bytes_in_use, align_up(freed, default_alignment));
}

std::size_t binning_memory_resource::bin_count() const {
  const std::shared_lock together(mutex_);
  return bins_.size() - 1;
}

std::string binning_memory_resource::specification() const {
  std::string min;
  std::string max;
  std::size_t added = bin_count();
  if (exponents_) {
    const auto [smallest, largest] = *exponents_;
    min = "min=" + std::to_string(smallest);
    max = "max=" + std::to_string(largest);
    added -= static_cast<std::size_t>(largest - smallest + 1);
  }
  // No text makes bins that a program has added: specification.cpp says so of one that has this.
  return spell_specification(kind(), {min, max, added == 0 ? "" : "added=" + std::to_string(added)});
}

memory_state binning_memory_resource::state() const {
  struct seen_bin {
    std::size_t bytes;
    std::shared_ptr<memory_resource> resource;
    std::shared_ptr<fixed_size_memory_resource> own;
    std::size_t bytes_in_use;
  };
  std::vector<seen_bin> bins;
  {
    const std::shared_lock together(mutex_);
    for (const auto& b : bins_) bins.push_back({b->bytes, b->resource, b->own, b->bytes_in_use});
  }
  const memory_state under = upstream_->state();
  memory_state figures;
  figures.limit = under.limit;
  figures.device_free = under.device_free;
  figures.device_total = under.device_total;
  figures.in_use = figures.held = 0;
  figures.largest_free = 0;
  std::size_t smaller = 0;  // sizes up to this are served by smaller bins
  for (const seen_bin& b : bins) {
    const memory_state its = b.own ? b.own->own_state() : b.resource == upstream_ ? under : b.resource->state();
    *figures.in_use += b.own ? its.in_use.value_or(0) : b.bytes_in_use;
    *figures.held += b.own ? its.held.value_or(0) : b.bytes_in_use;
    if (!its.largest_free) {
      figures.largest_free.reset();  // and the last, the upstream, has the last word
    } else if (const std::size_t largest = std::min(*its.largest_free, b.bytes); largest > smaller) {
      figures.largest_free = largest;
    }
    smaller = b.bytes;
  }
  return figures;
}

bool binning_memory_resource::is_host_accessible() const noexcept {
  if (is_inherited()) return false;
  const std::shared_lock together(mutex_);
  return std::ranges::all_of(bins_, [](const auto& b) { return b->resource->is_host_accessible(); });
}

bool binning_memory_resource::is_stream_ordered() const noexcept {
  if (is_inherited()) return false;
  const std::shared_lock together(mutex_);
  return std::ranges::any_of(bins_, [](const auto& b) { return b->resource->is_stream_ordered(); });
}

std::size_t binning_memory_resource::trim(std::size_t keep_bytes, bool wait) {
  std::vector<std::shared_ptr<memory_resource>> resources;
  {
    const std::shared_lock together(mutex_);
    for (const auto& b : bins_) resources.push_back(b->resource);
  }
  std::size_t released = 0;
  for (const auto& resource : resources) released += resource->trim(keep_bytes, wait);
  return released;
}

void binning_memory_resource::check() const {
  const std::shared_lock together(mutex_);
  if (!std::ranges::is_sorted(bins_, {}, &bin::bytes)) throw std::logic_error("binning: the bins are out of order");
  for (const auto& b : bins_) b->resource->check();
}

}  // namespace cenote::inline v1
