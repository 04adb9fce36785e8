// Memory of its own for a CUDA graph, or for torch.cuda.MemPool: segments, cut into blocks.
//
//     segment (one stream, one kind)      [ live ][ free      ][ live ][ free ]     blocks tile it, in address order
//
//   1. A request takes the smallest free block of its stream and kind (small: up to 1 MiB) that fits, lowest address
//      first; what is left over is cut off. Where none fits, a segment is taken: 2 MiB for small blocks, 20 MiB for
//      those below 10 MiB, else as large as the request.
//   2. A freed block joins the free blocks beside it. It serves its own stream again.
//   3. Addresses stay valid until release_idle() gives a segment back in which nothing is live.
//   4. take_at() makes a block live at an address that is free: the way back to an earlier state of the pool.
//
// Invariants
//   I1  the blocks of a segment tile it in address order
//   I2  no two neighbours in a segment are both free
//   I3  the free blocks, and no others, are in the index
//   I4  the live bytes and blocks are those of the blocks
//
// Threads: none of its own; private_pools locks.
// Cost: O(log n) in the blocks of the pool.
// Source: the sizes are those of PyTorch, so that a pool holds as much as one of its own allocator's.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace cenote::torch {

struct pool_block {
  std::size_t bytes = 0;
  std::size_t requested = 0;
  bool is_live = false;
  char* segment = nullptr;
};

struct pool_segment {
  std::size_t bytes = 0;
  void* stream = nullptr;
  bool is_large = false;
  std::size_t live_blocks = 0;
};

struct pool_totals {
  std::size_t bytes[2] = {};       ///< of segments: small, large
  std::size_t live_bytes[2] = {};  ///< of blocks
  std::size_t segments[2] = {};
  std::size_t split_blocks[2] = {};  ///< free ones in a segment that has others
  std::size_t split_bytes[2] = {};

  void add(const pool_totals& other);

  /// Leaves the live bytes alone.
  void forget_segments();
};

class private_pool {
 public:
  /// Takes a segment; null where memory ran out.
  using take_segment = std::function<char*(std::size_t bytes)>;
  using give_segment = std::function<void(char* segment, const pool_segment& given)>;

  void set_no_split() { is_never_split_ = true; }

  /// Null where no free block fits.
  char* allocate_from_free(std::size_t bytes, std::size_t requested, void* stream);

  /// Adds a segment of segment_bytes(bytes) for blocks of that kind and stream; all of it is free.
  void add_segment(char* segment, std::size_t bytes, void* stream);

  /// Null where `take` says so.
  char* allocate(std::size_t bytes, std::size_t requested, void* stream, const take_segment& take);

  /// Makes the free block at `address` live, cut to `bytes`; false where there is none so large.
  bool take_at(char* address, std::size_t bytes, std::size_t requested);

  /// The block must be live.
  void free(char* address);

  /// Gives every segment back in which nothing is live; returns the bytes.
  std::size_t release_idle(const give_segment& give);

  bool is_empty() const { return segments_.empty(); }
  std::size_t live_blocks() const { return live_blocks_; }
  const std::map<char*, pool_segment>& segments() const { return segments_; }
  const std::map<char*, pool_block>& blocks() const { return blocks_; }
  void add_totals(pool_totals& totals) const;

  /// Throws std::logic_error naming the invariant that does not hold.
  void check() const;

  static std::size_t segment_bytes(std::size_t bytes);

 private:
  using free_key = std::tuple<bool, void*, std::size_t, char*>;  // kind, stream, bytes, address
  using block_place = std::map<char*, pool_block>::iterator;

  free_key key_of(block_place block) const;
  bool is_worth_cutting(bool is_large, std::size_t left) const;
  char* make_live(block_place block, std::size_t bytes, std::size_t requested);
  void cut_behind(block_place block, std::size_t bytes);

  std::map<char*, pool_segment> segments_;
  std::map<char*, pool_block> blocks_;
  std::set<free_key> free_;
  std::size_t live_blocks_ = 0;
  bool is_never_split_ = false;
};

}  // namespace cenote::torch
