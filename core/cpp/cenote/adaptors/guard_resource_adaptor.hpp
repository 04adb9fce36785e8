// Finds writes outside of blocks: a checked mode, for programs that are under test.
//
//     ┌───────────┬─────────────────────────┬───────────┐
//     │   guard   │ the block, as asked for │   guard   │    from the upstream
//     └───────────┴─────────────────────────┴───────────┘
//                 a multiple of the         from the byte after
//                 alignment                 the last one on
//
//   1. allocate takes that much more and fills both guards with a pattern, in stream order.
//   2. deallocate orders its stream after the fill, which may be another stream's; waits for it, reads the guards back
//      and compares them. A byte that differs is reported: of which block, where, how many; and where it was allocated,
//      if a tracking adaptor under this one captures stacks.
//   3. find_overruns() does so for all blocks that are outstanding.
//
// A byte that happens to be written as the pattern is not noticed, and a write beyond the guards may hit another block.
// What is allocated on a stream that is being captured has no guards: the graph would fill them at each launch; and
// what is freed on one is not looked at, as waiting would end the capture. The log says so once.
//
// A free of a pointer that is not outstanding is reported and ignored; of another size, reported and done. A block
// whose free cannot be ordered after the fill is leaked, and reported.
//
// Threads: `mutex_` guards the bookkeeping; nothing is called under it. `looking_` is held by find_overruns throughout,
// and by a free while it takes its block out: what is looked at is not freed meanwhile.
// Cost: two fills and an event an allocation; two copies and a wait of the host a free; 512 bytes, an event and 100
// bytes of the host's a block.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "cenote/driver/event.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A block whose guards were written to.
struct overrun {
  const void* pointer = nullptr;
  std::size_t bytes = 0;         ///< of the block, as asked for
  std::ptrdiff_t offset = 0;     ///< of the first wrong byte: below 0 before the block, from `bytes` on after it
  std::size_t wrong_bytes = 0;   ///< in both guards
  stream_ref stream;             ///< that the block was allocated on; may be gone
  std::string allocated_from{};  ///< its stack as text, if that is known

  /// For people; more than one line if the stack is known.
  std::string text() const;
};

class guard_resource_adaptor final : public resource_adaptor {
 public:
  static constexpr std::size_t default_guard_bytes = 256;
  static constexpr std::size_t most_guard_bytes = 16 * MiB;

  /// Each guard has `guard_bytes`; std::invalid_argument if that is 0 or above most_guard_bytes.
  explicit guard_resource_adaptor(std::shared_ptr<memory_resource> upstream,
                                  std::size_t guard_bytes = default_guard_bytes);

  /// The outstanding blocks whose guards are not as they were left, once all work of the device is done. Waits for that
  /// work; throws std::logic_error while a stream of the device is known to be captured (capture.hpp).
  std::vector<overrun> find_overruns() const;

  /// How many blocks were found so, each counted once, by frees and by find_overruns.
  std::uint64_t overruns_found() const noexcept { return overruns_found_.load(std::memory_order_relaxed); }

  std::size_t guard_bytes() const noexcept { return guard_bytes_; }

  std::string kind() const override { return "guard"; }
  std::string specification() const override;
  memory_state state() const override;

 private:
  struct guarded_block {
    std::size_t bytes;
    std::size_t alignment;
    stream_ref stream;
    std::shared_ptr<event> filled;  // the moment when its guards are; null if it has none
    bool is_reported = false;
  };

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  std::size_t room_before(std::size_t alignment) const noexcept { return align_up(guard_bytes_, alignment); }
  std::size_t room_for(std::size_t bytes, std::size_t alignment) const noexcept;
  bool may_touch_guards(stream_ref stream) const;
  std::shared_ptr<event> fill_guards(stream_ref stream, std::byte* block, std::size_t bytes) const;
  void order_after_fill(stream_ref stream, const guarded_block& known) const;
  std::optional<guarded_block> take_out(void* pointer) noexcept;
  void look_before_free(stream_ref stream, std::byte* block, const guarded_block& known) noexcept;
  std::optional<overrun> look(stream_ref stream, std::byte* block, const guarded_block& known) const;
  std::string stack_of(const void* base) const;
  template <class... Parts>
  void report(const Parts&... parts) const noexcept;

  const std::size_t guard_bytes_;
  mutable object_mutex looking_;  // taken before mutex_
  mutable object_mutex mutex_;
  mutable std::unordered_map<std::byte*, guarded_block> blocks_;  // guarded by mutex_
  mutable std::atomic<std::uint64_t> overruns_found_{0};
  mutable std::atomic<int> reports_{0};
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
