// Chooses the resource by the size: each bin serves what fits into it and into no smaller bin, the upstream the rest.
//
//     bytes      0 … 1 KiB        … 64 KiB          … 128 MiB     above
//     served by  fixed_size 1K    fixed_size 64K    cuda          upstream
//
// What is in use are the whole blocks of the bins that were made here, and of the other resources the bytes that were
// asked for, rounded up to 256. What is held is all that was taken of the upstream and of the bins that were added.
//
// A block goes back to the bin that its size names. A bin added later must therefore not take over sizes of which
// blocks are in use: add_bin refuses, rather than have them freed to the wrong resource.
//
// Threads: `mutex_` lets allocations and frees read the bins together; add_bin has it alone. The resource that is
// chosen is called outside it. Cost: O(log bins).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class binning_memory_resource final : public memory_resource {
 public:
  explicit binning_memory_resource(std::shared_ptr<memory_resource> upstream);

  /// With bins of 2^min_size_exponent, 2^(min + 1), … 2^max_size_exponent bytes, of fixed_size_memory_resource over the
  /// upstream, which take memory when they are first used. std::invalid_argument unless 0 <= min <= max <= 62.
  binning_memory_resource(std::shared_ptr<memory_resource> upstream, int min_size_exponent, int max_size_exponent);

  /// A bin for sizes up to `bytes` (rounded up to 256), of `bin`, or of blocks of that size over the upstream if it is
  /// null. A bin of that size that exists already is left as it is. std::invalid_argument if `bytes` is 0, or `bin` is
  /// another device's, stands on this resource, or on more than 16 resources that the upstream does not stand on;
  /// std::logic_error if blocks are in use of sizes that it would take
  /// over.
  void add_bin(std::size_t bytes, std::shared_ptr<memory_resource> bin = nullptr);

  std::size_t bin_count() const;

  std::string kind() const override { return "binning"; }
  std::string specification() const override;
  std::shared_ptr<memory_resource> upstream() const override { return upstream_; }
  memory_state state() const override;
  bool is_host_accessible() const noexcept override;
  bool is_stream_ordered() const noexcept override;
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override;
  void check() const override;

 private:
  struct bin {
    std::size_t bytes;  // serves sizes up to this
    std::shared_ptr<memory_resource> resource;
    std::shared_ptr<fixed_size_memory_resource> own;  // the same, if it was made here: it knows what is in use
    std::atomic<std::size_t> blocks_in_use{0};
    std::atomic<std::size_t> bytes_in_use{0};  // unless it is our own
  };

  bin& bin_for(std::size_t bytes) const;
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  std::shared_ptr<memory_resource> upstream_;
  std::optional<std::pair<int, int>> exponents_;

  mutable object_shared_mutex mutex_;
  std::vector<std::unique_ptr<bin>> bins_;  // by size; the last is the upstream's, for every size
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
