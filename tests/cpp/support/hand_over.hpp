// A block that goes from one stream to another, on the simulated device: was the first one done with it?
#pragma once

#include "support/simulated.hpp"

namespace cenote::test {

struct outcome {
  bool former_owner_was_done;  ///< what A copied out of the block is A's
  bool block_is_the_new_owners;
};

/// A writes the block and copies it to `witness`, B overwrites it, and only B is waited for. Then all else runs.
inline outcome hand_over(stream_ref a, stream_ref b, void* block, void* witness, std::size_t bytes) {
  fill_async(block, 0xBB, bytes, b, 0);
  synchronize(b, 0);
  cenote_sim_drain();
  return {all_are(read(witness, bytes, a), 0xAA), all_are(read(block, bytes, b), 0xBB)};
}

}  // namespace cenote::test
