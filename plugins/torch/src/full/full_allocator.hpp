// PyTorch's own interface of an allocator (c10::cuda::CUDACachingAllocator::CUDAAllocator), all of it, over cenote.
//
//     PyTorch ──► full_allocator ──┬─► the current resource of the device     tensors
//                                  ├─► private_pools                          graphs, torch.cuda.MemPool
//                                  └─► PyTorch's own allocator                blocks that it made before
//
//   1. A tensor is one block of the current resource, allocated on PyTorch's current stream and freed in its order. The
//      table of live blocks says what an address is.
//   2. Memory ran out: the callbacks that free memory run, what is idle goes back, one more attempt; then observers are
//      told and torch.OutOfMemoryError is thrown, in PyTorch's words first and cenote's after them.
//   3. An address that is not in the table belongs to PyTorch's own allocator, and goes to it.
//   4. After uninstalling, new blocks are PyTorch's own again. The object stays in its place, so that blocks of cenote
//      find their way back. It is never destroyed.
//
// The functions that differ between versions of PyTorch are declared without `override`, in each of their forms: the
// one that this PyTorch calls is the one that overrides.
//
// Threads: all functions from any thread. No Python object is touched here.
// Cost: beside the core's, a look-up in the table and the statistics, under one short lock. What each allocation and
// free runs is marked hot, so that the linker lays it side by side: PyTorch's own code in between is spread over
// hundreds of pages.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cenote/cenote.h"
#include "device_blocks.hpp"
#include "memory_history.hpp"
#include "private_pools.hpp"
#include "recorded_frees.hpp"
#include "shared_memory.hpp"
#include "snapshot.hpp"
#include "torch_types.hpp"

namespace cenote::torch {

class full_allocator final : public cuda_allocator {
 public:
  explicit full_allocator(cuda_allocator* native);

  /// Where new blocks come from: cenote, or PyTorch's own allocator again.
  void turn_on(bool on);
  private_pools& pools() noexcept { return pools_; }
  bool is_on() const noexcept { return is_on_.load(std::memory_order_acquire); }

  // c10::Allocator
  c10::DataPtr allocate(std::size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* target, const void* source, std::size_t bytes) const override;

  // c10::DeviceAllocator
  bool initialized() override;
  void emptyCache(mempool_id id = {0, 0}) override;
  device_figures getDeviceStats(c10::DeviceIndex device) override;
  void resetAccumulatedStats(c10::DeviceIndex device) override;
  void resetPeakStats(c10::DeviceIndex device) override;

  // CUDAAllocator
  using cuda_allocator::recordStream;
  void* raw_alloc(std::size_t bytes) override;
  void* raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) override;
  void raw_delete(void* pointer) override;
  void init(int device_count) override;
  double getMemoryFraction(c10::DeviceIndex device) override;
  void setMemoryFraction(double fraction, c10::DeviceIndex device) override;
#if CENOTE_TORCH_VERSION >= 21000
  std::vector<c10::cuda::CUDACachingAllocator::StreamSegmentSize> getExpandableSegmentSizes(
      c10::DeviceIndex device) override;
#endif
  void enable(bool value) override;
  bool isEnabled() const override;
  void cacheInfo(c10::DeviceIndex device, std::size_t* largest) override;
  void* getBaseAllocation(void* pointer, std::size_t* bytes) override;
  void recordStream(const c10::DataPtr& data, c10::cuda::CUDAStream stream) override;
  SnapshotInfo snapshot(mempool_id id, bool include_traces);
  SnapshotInfo snapshot(mempool_id id);
  SnapshotInfo snapshot();
  void beginAllocateToPool(c10::DeviceIndex device, mempool_id id, std::function<bool(cudaStream_t)> filter) override;
  void endAllocateToPool(c10::DeviceIndex device, mempool_id id) override;
  void markCaptureBegin(c10::DeviceIndex device);
  void markCaptureEnd(c10::DeviceIndex device);
  void releasePool(c10::DeviceIndex device, mempool_id id) override;
  int getPoolUseCount(c10::DeviceIndex device, mempool_id id) override;
  void createOrIncrefPool(c10::DeviceIndex device, mempool_id id, std::shared_ptr<cuda_allocator> source);
  void createOrIncrefPool(c10::DeviceIndex device, mempool_id id, cuda_allocator* source);
  void setUseOnOOM(c10::DeviceIndex device, mempool_id id, bool use);
  void setUseOnOOM(c10::DeviceIndex device, mempool_id id);
  void setNoSplit(c10::DeviceIndex device, mempool_id id);
  bool checkPoolLiveAllocations(c10::DeviceIndex device, mempool_id id,
                                const std::unordered_set<void*>& expected) override;
  ShareableHandle shareIpcHandle(void* pointer) override;
  std::shared_ptr<void> getIpcDevPtr(std::string handle) override;
  bool isHistoryEnabled() override;
  void recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when, bool clear,
                     const std::vector<std::string>& skipped);
  void recordHistory(bool enabled, context_recorder recorder, std::size_t max_entries, record_level when, bool clear);
  void recordAnnotation(const std::vector<std::pair<std::string, std::string>>& metadata) override;
  void pushCompileContext(std::string& text) override;
  void popCompileContext() override;
  void setUserMetadata(const std::string& text);
  std::string getUserMetadata();
  bool supportsUserMetadata() { return true; }
  void annotateMemory(const void* pointer, const std::string& text);
  context getContextForPointer(const void* pointer);
  void attachOutOfMemoryObserver(OutOfMemoryObserver observer) override;
  void attachOomRejectionObserver(std::function<void(std::int64_t, std::size_t, std::size_t, std::size_t)> observer);
  void attachAllocatorTraceTracker(trace_tracker tracker) override;
  void enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex accessed) override;
  cudaError_t memcpyAsync(void* target, int target_device, const void* source, int source_device, std::size_t bytes,
                          cudaStream_t stream, bool has_peer_access) override;
  std::shared_ptr<AllocatorState> getCheckpointState(c10::DeviceIndex device, mempool_id id) override;
  CheckpointDelta setCheckpointPoolState(c10::DeviceIndex device, std::shared_ptr<AllocatorState> state) override;
  std::string name() override;

 private:
  struct alignas(64) device_state {
    device_blocks blocks;
    std::atomic<std::size_t> limit{0};  // bytes that tensors and private pools may take; 0: any
    std::atomic<double> fraction{1.0};
    std::atomic<std::size_t> reserved_when_looked{0};
    std::atomic<std::uint64_t> next_look{0};
    std::atomic<bool> is_used{false};
  };
  struct request {
    c10::DeviceIndex device;
    std::size_t bytes;
    std::size_t requested;
    cudaStream_t stream;
    bool stream_is_foreign;
  };

  device_state& of(c10::DeviceIndex device);
  void prepare_native();
  bool makes_blocks() const { return is_on() && is_enabled_.load(std::memory_order_relaxed); }
  std::size_t room_on(c10::DeviceIndex device);
  void* allocate_on(std::size_t bytes, c10::DeviceIndex device, cudaStream_t stream, bool stream_is_foreign);
  bool try_allocate(const request& wanted, const context& stack, live_block& block, void*& pointer, std::string& why);
  bool allocate_from_core(const request& wanted, void*& pointer, std::string& why);
  void make_room(const request& wanted);
  void use_first(c10::DeviceIndex device);
  void* allocate_under_pressure(const request& wanted, const context& stack, live_block& block, std::string& why);
  [[noreturn]] void fail(const request& wanted, const std::string& why, const context& stack);
  /// Calls body(blocks of a device) for devices that were used, until one call returns what is true, which is returned.
  template <class Body>
  auto find_in_devices(Body&& body) {
    const c10::DeviceIndex first = last_device_.load(std::memory_order_relaxed);
    auto found = body(of(first).blocks);
    if (found) [[likely]]
      return found;
    for (c10::DeviceIndex other = 0; !found && other < used_devices_.load(); ++other) {
      if (other != first) found = body(of(other).blocks);
    }
    return found;
  }
  template <class Visitor>
  bool visit(const void* pointer, Visitor&& visitor) {
    return find_in_devices([&](device_blocks& blocks) { return blocks.visit(pointer, visitor); });
  }

  void free(void* pointer);
  static void free_block(void* pointer);
  void free_recorded(void* pointer, live_block& block);
  void finish_free(void* pointer, const live_block& block);
  void give_back(void* pointer, const live_block& block);
  void report(void* pointer, std::int64_t bytes, std::size_t allocated, c10::DeviceIndex device);
  std::size_t look_at_reserved(c10::DeviceIndex device);
  bool has_native() const { return native_->initialized(); }

  const cenote_api& core_;
  const int client_;
  cuda_allocator* const native_;
  std::atomic<bool> is_on_{true};
  std::atomic<bool> is_initialized_{false};
  std::atomic<bool> is_enabled_{true};
  std::atomic<int> device_count_{0};
  std::atomic<c10::DeviceIndex> used_devices_{0};             // those from 0 on that include all which have had blocks
  alignas(64) std::atomic<c10::DeviceIndex> last_device_{0};  // of an allocation: where an address is looked for first
  memory_history history_;
  private_pools pools_{history_};
  recorded_frees recorded_{[this](void* pointer, const live_block& block) { finish_free(pointer, block); }};
  shared_memory shared_;
  std::array<device_state, 128> devices_;
  std::mutex observers_mutex_;  // guards `observers_`
  std::vector<OutOfMemoryObserver> observers_;
};

}  // namespace cenote::torch
