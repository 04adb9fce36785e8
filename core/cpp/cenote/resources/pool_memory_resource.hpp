// A pool over any upstream: takes memory in pages or chunks and hands it out in blocks, in the order of streams. In the
// common case the driver is asked for no more than who the stream is (stream_id.hpp), and for nothing at all on the
// legacy default stream.
//
// This is the door; the work is done by pool/engine.hpp, whose page says how. Over virtual memory
// (virtual_memory_resource) the pool has one range of addresses and maps pages under it itself (pool/page_backing.hpp);
// over any other upstream it has chunks (pool/chunk_backing.hpp).
//
// A pin keeps what lies under a block where it is, whoever uses the block: no page of it is moved, exchanged or given
// back, and no chunk (pool/pinned_blocks.hpp).
//
// Invariants: those of pool/engine.hpp.
//
// Threads: any. Cost: that of pool/engine.hpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/pool/pool_counters.hpp"
#include "cenote/pool/pool_pin.hpp"

namespace cenote::inline v1 {
class pools_held_still;
}  // namespace cenote::inline v1

namespace cenote::inline v1::pool {
class engine;
class idle_trimmer;
}  // namespace cenote::inline v1::pool

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// How much a pool over virtual memory holds beyond what is in use.
struct pool_spare {
  /// Up to 3 % more than the most that was in use, where it else holds up to 10 % more: pages are moved more often.
  bool is_tight = false;
  /// What was not used for so long goes back to the device, by a thread of the pool's. Never, if it is not given.
  std::optional<std::chrono::milliseconds> idle{};
};

class pool_memory_resource final : public memory_resource {
 public:
  /// Sizes in bytes, multiples of 256; std::logic_error if they are not, or if `initial` is above `maximum`.
  /// Without `initial` the pool starts with half of the device's free memory, and with nothing over virtual memory or
  /// what the host can use, which may be its own; without `maximum` it grows while the upstream gives. std::logic_error
  /// if `spare` asks for what only a pool over virtual memory has, or for no time; over virtual memory that the device
  /// does not have it is ignored.
  explicit pool_memory_resource(std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> initial = {},
                                std::optional<std::size_t> maximum = {}, pool_spare spare = {});
  ~pool_memory_resource() override;

  /// Bytes taken from the upstream.
  std::size_t pool_size() const;
  pool_counters counters() const;

  /// From now on the pool grows by `bytes` at once, or by what is asked for if that is more.
  void grow_in_steps_of(std::size_t bytes);

  /// Every block, one a line, in order of address: what is in use and how the free memory lies between. What lies in a
  /// thread's cache is set aside: it is not yet joined with what is free beside it.
  std::string map() const;

  /// Pins the memory under a block that is in use: until the last pin is taken back its pages are neither moved nor
  /// exchanged nor given back, and neither is its chunk over another upstream. Pins are counted. The block may be freed
  /// meanwhile, and its bytes used by others as ever. std::invalid_argument if no block in use starts at `pointer`.
  void pin(const void* pointer, pin_kind kind);

  /// Takes one pin back, by the address that was pinned, whether the block is in use or not. std::invalid_argument if
  /// nothing is pinned there as that kind.
  void unpin(const void* pointer, pin_kind kind);

  /// All pins, in order of address.
  std::vector<pool_pin> pins() const;

  /// Gives all pages back to the device and keeps every address: the blocks in use, what they hold, and the graphs that
  /// use them. `keep` says where the contents go meanwhile (pool/parking.hpp): "host", "peer:N", "file:FOLDER",
  /// "nothing", "fill:BYTE". All work that was queued before is waited for on the host; what is queued before resume()
  /// must not use the pool's memory, and neither may a graph. Blocks may be freed meanwhile; to allocate or pin is an
  /// error (std::runtime_error). Returns the bytes that the pool gave back.
  ///
  /// Throws, with nothing changed: std::logic_error for a pool that is not over virtual memory, std::invalid_argument
  /// for a wrong `keep`; std::runtime_error if the pool is paused, if a block is pinned as other than captured, or
  /// while work is being captured; out_of_memory where the host has no memory; cuda_error.
  std::size_t pause(const std::string& keep = "host");

  /// Brings pages to the same addresses, with what they held. Returns their bytes. Throws, and the pool stays paused:
  /// std::runtime_error if it is not paused; out_of_memory, with what is missing, where the device has not enough left;
  /// cuda_error.
  std::size_t resume();

  /// Copies what a paused pool held at an address to memory of the host. False, and a part may have been copied, where
  /// the pool is not paused, or some of the bytes are not kept: those of no block, or all with "nothing". Bytes that
  /// were free at the pause may be kept or not. Throws std::runtime_error where a file cannot be read, and cuda_error.
  bool read_paused(void* to, const void* from, std::size_t bytes);

  /// The pool is going to be paused: its pages are larger from now on, of a 256th of it instead of a thousandth, so
  /// that there are fewer to unmap and to map. std::logic_error for a pool that is not over virtual memory.
  void expect_pauses();

  /// Whether the pool is over virtual memory that its device has.
  bool can_be_paused() const noexcept;
  bool is_paused() const noexcept;

  /// Bytes that resume() needs; 0 while the pool is not paused.
  std::size_t paused_bytes() const noexcept;

  std::string kind() const override { return "pool"; }
  std::string specification() const override;
  std::shared_ptr<memory_resource> upstream() const override;
  bool is_stream_ordered() const noexcept override { return true; }
  memory_state state() const override;

  /// state() without what only the upstream knows, and without asking it.
  memory_state own_state() const;

  /// Gives back chunks, or pages, that are wholly free and whose work is done. The rest goes back once its work is
  /// done, at the next call that the caches do not serve (pages), or that asks the upstream (chunks). Beside a capture
  /// (capture.hpp) only what events cover already is known to be done, and `wait` waits for nothing.
  std::size_t trim(std::size_t keep_bytes = 0, bool wait = false) override;
  void check() const override;

 private:
  friend class pools_held_still;  // which pauses several as one

  void trim_idle(std::size_t keep_bytes) noexcept;

  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  bool do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  std::unique_ptr<pool::engine> engine_;
  std::optional<std::size_t> initial_;
  pool_spare spare_;
  std::unique_ptr<pool::idle_trimmer> idle_trimmer_;  // last, as it uses the engine
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
