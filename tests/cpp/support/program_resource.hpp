// A resource as a program may write one: it takes from another one, and the test says what happens meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cenote/memory_resource.hpp"

namespace cenote::test {

class program_resource final : public memory_resource {
 public:
  explicit program_resource(std::shared_ptr<memory_resource> source)
      : memory_resource(source->device()), source_(std::move(source)) {}

  std::function<bool()> has_memory = [] { return true; };     ///< asked first by each allocation
  std::function<void()> before_free = [] {};                  ///< called first by each free
  std::function<std::size_t()> give_back = [] { return 0; };  ///< what trim does

  std::size_t last_alignment = 0;  ///< of the last call
  std::size_t last_bytes = 0;
  int allocations = 0;

  std::string kind() const override { return "program"; }
  std::size_t trim(std::size_t, bool) override { return give_back(); }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override {
    ++allocations;
    last_bytes = bytes;
    last_alignment = alignment;
    return has_memory() ? source_->try_allocate(stream, bytes, alignment) : nullptr;
  }

  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept override {
    last_bytes = bytes;
    last_alignment = alignment;
    before_free();
    source_->deallocate(stream, pointer, bytes, alignment);
  }

  std::shared_ptr<memory_resource> source_;
};

}  // namespace cenote::test
