// A pool that takes all its memory at once and never asks for more.
//
// What a program may use is then settled at its start, and nothing it does later can fail for somebody else's sake.
// Bookkeeping and ordering are the pool's (pool_memory_resource.hpp); when memory runs out, the map of its blocks can
// be written to a file, which shows whether it is full or in pieces.
#pragma once

#include <memory>
#include <optional>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class arena_memory_resource final : public memory_resource {
 public:
  /// `arena_size` in bytes, rounded down to 256; half of the device's free memory if not given. std::logic_error below
  /// 1 MiB. With `dump_log_on_failure`, an allocation that fails appends the map of the arena to the file
  /// `dump_file_name` in the current folder.
  explicit arena_memory_resource(std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> arena_size = {},
                                 bool dump_log_on_failure = false);

  static constexpr const char* dump_file_name = "cenote_arena_memory_dump.log";

  std::size_t arena_size() const noexcept { return arena_size_; }
  const pool_memory_resource& pool() const noexcept { return pool_; }

  std::string kind() const override { return "arena"; }
  std::string specification() const override;
  std::shared_ptr<memory_resource> upstream() const override { return pool_.upstream(); }
  bool is_stream_ordered() const noexcept override { return true; }
  memory_state state() const override { return pool_.state(); }

  /// Nothing: an arena keeps its memory.
  std::size_t trim(std::size_t = 0, bool = false) override { return 0; }
  void check() const override { pool_.check(); }

 private:
  struct checked_size {
    std::size_t bytes;
  };
  static checked_size check_size(const std::shared_ptr<memory_resource>& upstream, std::optional<std::size_t> wanted);
  arena_memory_resource(std::shared_ptr<memory_resource> upstream, checked_size size, bool dump_log_on_failure);

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void dump(std::size_t failed_bytes) const noexcept;

  std::size_t arena_size_;
  pool_memory_resource pool_;
  bool dump_log_on_failure_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
