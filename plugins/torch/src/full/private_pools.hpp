// The private pools of all devices, and which allocation goes into which.
//
//   1. A pool has PyTorch's number and a count: of captures and contexts that allocate into it, of graphs and MemPool
//      objects that hold it. begin() counts one more and sends allocations there whose stream its filter accepts, until
//      end(), the last begun one first; release() counts one less.
//   2. A pool at count 0 gives each segment back as soon as nothing in it is live, after all work that the device has
//      been given by then: a graph that was launched last may still run.
//   3. Segments come from the current resource of the device, or from the allocator that the MemPool was made with.
//      They are no capture's: a pool outlives captures, and one capture takes what an earlier one has freed.
//   4. A block that is used on other streams too is free when the work is done that these streams had at its free.
//      While anything is captured into the pool, such blocks wait for the end of it.
//   5. A graph's own pool that joins a set of pages (graph_pages.hpp) has its segments there, one behind the other.
//   6. A capture is announced to the core from begin() to end(). A PyTorch that does not tell captures from
//      use_mem_pool calls begin() for both: there the first allocation shows which of them it is.
//
// Threads: any; `mutex_` guards the pools. Segments are taken and given back without it: the resource may wait for the
// device, or be a program's own and need the GIL.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "graph_pages.hpp"
#include "live_block.hpp"
#include "memory_history.hpp"
#include "private_pool.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

/// The live blocks of a pool at some moment.
struct pool_state : AllocatorState {
  struct block {
    char* address;
    std::size_t bytes;
    std::size_t requested;
    void* stream;
  };
  mempool_id id;
  std::vector<block> blocks;
};

class private_pools {
 public:
  explicit private_pools(memory_history& history) : history_(history) {}

  bool has_routes() const noexcept { return routes_count_.load(std::memory_order_acquire) != 0; }

  struct block {
    void* pointer = nullptr;
    std::size_t bytes = 0;
    private_pool* pool = nullptr;
    mempool_id id;
  };

  /// Nothing where no pool takes allocations of that stream; a null pointer where memory ran out, or a new segment
  /// would take more than `room` bytes.
  std::optional<block> allocate(c10::DeviceIndex device, std::size_t bytes, std::size_t requested, cudaStream_t stream,
                                std::size_t room, const context& stack);

  /// From what lies free in pools that are there for this; a null pointer where none has it.
  block allocate_when_out_of_memory(c10::DeviceIndex device, std::size_t bytes, std::size_t requested,
                                    cudaStream_t stream);

  void record_stream(void* pointer, cudaStream_t stream);
  void free(const live_block& freed, void* pointer);

  bool has(c10::DeviceIndex device, mempool_id id) const;
  void begin(c10::DeviceIndex device, mempool_id id, std::function<bool(cudaStream_t)> filter);
  bool end(c10::DeviceIndex device, mempool_id id);
  void mark_capture(c10::DeviceIndex device, bool begins);
  bool release(c10::DeviceIndex device, mempool_id id);
  void create_or_count(c10::DeviceIndex device, mempool_id id, std::shared_ptr<cuda_allocator> source);
  int use_count(c10::DeviceIndex device, mempool_id id) const;
  void use_when_out_of_memory(c10::DeviceIndex device, mempool_id id, bool use);
  void set_no_split(c10::DeviceIndex device, mempool_id id);

  /// The set of pages that a graph's pool has joined; 0 for none.
  graph_pages::set_number set_of(mempool_id id) const;
  std::size_t set_bytes(graph_pages::set_number set) { return pages_.bytes(set); }

  /// Gives back what graphs that are gone had of shared pages; returns the bytes that these have.
  std::size_t trim_shared(c10::DeviceIndex device, bool waits) { return pages_.trim(device, waits); }

  /// Gives the idle segments of pools back that nobody counts on any more.
  void release_idle(c10::DeviceIndex device);

  bool live_blocks_are(c10::DeviceIndex device, mempool_id id, const std::unordered_set<void*>& expected) const;
  std::shared_ptr<pool_state> state(c10::DeviceIndex device, mempool_id id) const;

  struct changes {
    private_pool* pool = nullptr;
    std::vector<void*> freed;
    std::vector<pool_state::block> made;
  };
  /// Frees what is live in the pool and makes the blocks of `wanted` live.
  changes restore(c10::DeviceIndex device, const pool_state& wanted);

  /// The figures of all pools of a device, and apart those of segments that are not from the current resource. The
  /// bytes and segments of pools over shared pages are in neither: trim_shared() has them, once.
  pool_totals totals(c10::DeviceIndex device) const;
  std::size_t foreign_bytes(c10::DeviceIndex device) const;

  /// Calls visit(id, pool) under the lock.
  void for_each(c10::DeviceIndex device, const std::function<void(mempool_id, const private_pool&)>& visit) const;

 private:
  struct pending_free {
    char* address;
    std::vector<cudaStream_t> streams;  // whose work is to be marked once the capture is over
    std::vector<cudaEvent_t> events;
  };
  struct kept_pool {
    c10::DeviceIndex device = 0;
    mempool_id id;
    int count = 0;
    int filling = 0;  // begin() without end()
    bool use_when_out_of_memory = false;
    std::shared_ptr<cuda_allocator> source;
    graph_pages::set_number set = 0;
    cenote_page_set* pages = nullptr;  // null: of no set
    std::size_t pages_end = 0;         // where in the set the next segment begins
    private_pool blocks;
    std::map<void*, std::vector<cudaStream_t>> recorded;
    std::vector<pending_free> pending;
  };
  struct route {
    c10::DeviceIndex device;
    mempool_id id;
    std::function<bool(cudaStream_t)> filter;
    bool is_announced;
  };
  using key = std::pair<c10::DeviceIndex, mempool_id>;

  /// Where a pool has its next segment from: an allocator, pages of a set, else the current resource.
  struct segment_source {
    std::shared_ptr<cuda_allocator> allocator;
    cenote_page_set* pages = nullptr;
    std::size_t offset = 0;
  };

  /// Of a pool that may be gone by the time that it is given back.
  struct idle_segment {
    char* address;
    pool_segment what;
    c10::DeviceIndex device;
    mempool_id id;
    std::shared_ptr<cuda_allocator> source;
    cenote_page_set* pages;
  };
  using idle_segments = std::vector<idle_segment>;

  kept_pool* find_locked(c10::DeviceIndex device, mempool_id id) const;
  kept_pool& make_locked(c10::DeviceIndex device, mempool_id id);
  kept_pool& owner_locked(const private_pool* blocks, c10::DeviceIndex device) const;
  void finish_pending_locked(kept_pool& pool);
  [[nodiscard]] idle_segments forget_if_done_locked(kept_pool& pool);
  char* take_segment(c10::DeviceIndex device, mempool_id id, const segment_source& source, std::size_t bytes,
                     cudaStream_t stream, const context& stack);
  void give_back(const idle_segments& segments);
  static bool is_pending(const kept_pool& pool, const void* address);

  memory_history& history_;
  graph_pages pages_;
  std::atomic<int> routes_count_{0};
  mutable std::mutex mutex_;  // guards all below
  std::map<key, std::unique_ptr<kept_pool>> pools_;
  std::vector<route> routes_;
};

}  // namespace cenote::torch
