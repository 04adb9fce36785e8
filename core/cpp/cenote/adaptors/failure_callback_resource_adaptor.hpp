// Asks the program for help when memory ran out, and tries again.
//
//   1. The upstream has no memory: it is trimmed, and asked again if that gave anything back.
//   2. The callback is called with the bytes, the stream and the number of the try, from 1. It may free memory, and
//      answers whether to try again.
//   3. It is called `max_tries` times at the most; then, or when it answers false, memory has run out.
//
// Only for memory that ran out: any other failure passes through at once, and so does what the callback throws.
//
// Threads: no lock; the callback may be called by several threads at a time, and may use any resource.
#pragma once

#include <functional>

#include "cenote/ground/export.hpp"
#include "cenote/resource_adaptor.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class failure_callback_resource_adaptor final : public resource_adaptor {
 public:
  using callback = std::function<bool(std::size_t bytes, stream_ref stream, std::size_t tries)>;

  static constexpr std::size_t default_max_tries = 64;

  /// Throws std::invalid_argument if `ask` is empty.
  failure_callback_resource_adaptor(std::shared_ptr<memory_resource> upstream, callback ask,
                                    std::size_t max_tries = default_max_tries);

  std::size_t max_tries() const noexcept { return max_tries_; }

  std::string kind() const override { return "failure_callback"; }
  std::string specification() const override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;

  callback ask_;
  std::size_t max_tries_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
