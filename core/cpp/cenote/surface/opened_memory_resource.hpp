// The other side of a shared block (block_offer.hpp): the block of another process, mapped here, as a resource that has
// just this block to give, once.
//
// Threads: any. Cost: not measured: a connection, and for each page what it costs to map one (driver/page_mapping.hpp).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class opened_memory_resource final : public memory_resource {
 public:
  /// Throws std::invalid_argument for what is no handle, and std::runtime_error, which says why, where the block is
  /// this process's own, where its owner has ended, has freed it, or is another user's, and where this process does not
  /// see its device; cuda_error. The current device may use the memory as well, where it reaches the block's.
  explicit opened_memory_resource(const std::string& handle);
  ~opened_memory_resource() override;

  /// Of the block.
  std::size_t bytes() const noexcept;

  std::string kind() const override { return "opened"; }
  bool is_stream_ordered() const noexcept override { return false; }
  memory_state state() const override;
  std::size_t trim(std::size_t, bool) override { return 0; }

 private:
  struct mapped;

  explicit opened_memory_resource(std::unique_ptr<mapped> block);

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  std::unique_ptr<mapped> mapped_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
