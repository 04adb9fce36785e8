// The bytes that a free has really freed, where its caller named a wrong size, or no block of that resource.
//
//     counts 2000 fewer ──► pool: the block has 1000 ──┐
//     counts 1000 more  ◄── free_correction ◄──────────┘
//
// A free comes with a size, and whoever counts bytes takes it at its word, as only some resources know the sizes of
// their blocks. One that does, and sees that a size is wrong or that there is no such block, says so here. Whoever
// counts above it looks after its call, and corrects what it has counted.
//
// Threads: each has its own. Cost: a thread-local read for a free, and another for who counts.
#pragma once

#include <cstddef>
#include <optional>

namespace cenote::inline v1 {

class free_correction {
 public:
  /// Says of the free of `pointer`, under way on this thread, how many bytes were asked for when the block was
  /// allocated; 0 if nothing was freed.
  static void say(const void* pointer, std::size_t bytes) noexcept { last_ = {pointer, bytes}; }

  /// Returns the bytes that say() named for the free of `pointer` just made; nothing if its size was right.
  static std::optional<std::size_t> of(const void* pointer) noexcept {
    if (last_.pointer != pointer) [[likely]]
      return std::nullopt;
    return last_.bytes;
  }

  /// Before another free.
  static void forget() noexcept {
    if (last_.pointer != nullptr) [[unlikely]]
      last_.pointer = nullptr;
  }

 private:
  struct correction {
    const void* pointer = nullptr;
    std::size_t bytes = 0;
  };

  [[gnu::tls_model("initial-exec")]] static constinit thread_local correction last_;
};

}  // namespace cenote::inline v1
