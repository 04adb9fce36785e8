// The blocks that a case holds, each in a slot: filled, replaced and freed on one stream.
#pragma once

#include <new>
#include <vector>

#include "operations.hpp"
#include "peer.hpp"
#include "stopwatch.hpp"

namespace bench {

/// Allocates, or throws std::bad_alloc where the peer says no by null.
template <class Peer>
void* require(Peer& peer, CUstream stream, std::size_t bytes) {
  void* pointer = peer.allocate(stream, bytes);
  if (pointer == nullptr) [[unlikely]]
    throw std::bad_alloc();
  return pointer;
}

template <class Peer>
class live_blocks {
 public:
  live_blocks(Peer& peer, CUstream stream) : peer_(peer), stream_(stream) {}

  ~live_blocks() {
    if constexpr (!Peer::forgets)
      for (const block& each : blocks_) peer_.deallocate(stream_, each.pointer, each.bytes);
  }
  live_blocks(const live_blocks&) = delete;
  live_blocks& operator=(const live_blocks&) = delete;

  /// Has room for `count` blocks, and touches it, so that filling does not.
  void prepare(std::size_t count) {
    blocks_.resize(count);
    blocks_.clear();
  }

  void fill(const std::vector<std::size_t>& sizes, patience& left) {
    for (const std::size_t bytes : sizes) {
      left.check();
      blocks_.push_back({require(peer_, stream_, bytes), bytes});
    }
  }

  /// Frees every second block, so that as many holes as blocks remain.
  void make_holes(patience& left) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      left.check();
      if (i % 2 == 0)
        blocks_[kept++] = blocks_[i];
      else
        peer_.deallocate(stream_, blocks_[i].pointer, blocks_[i].bytes);
    }
    blocks_.resize(kept);
  }

  void replace(const replacement& next) {
    block& slot = blocks_[next.slot];
    peer_.deallocate(stream_, slot.pointer, slot.bytes);
    slot = {nullptr, 0};
    slot = {require(peer_, stream_, next.bytes), next.bytes};
  }

  std::size_t count() const noexcept { return blocks_.size(); }

 private:
  struct block {
    void* pointer;
    std::size_t bytes;
  };
  Peer& peer_;
  CUstream stream_;
  std::vector<block> blocks_;
};

}  // namespace bench
