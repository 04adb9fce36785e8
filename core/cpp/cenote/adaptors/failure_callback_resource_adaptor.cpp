#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"

#include <exception>
#include <stdexcept>

#include "cenote/driver/identified_scope.hpp"

namespace cenote::inline v1 {

failure_callback_resource_adaptor::failure_callback_resource_adaptor(std::shared_ptr<memory_resource> upstream,
                                                                     callback ask, std::size_t max_tries)
    : resource_adaptor(std::move(upstream), "failure_callback"), ask_(std::move(ask)), max_tries_(max_tries) {
  if (!ask_) throw std::invalid_argument("the failure callback adaptor needs a function to call");
}

std::string failure_callback_resource_adaptor::specification() const {
  return spell_specification(kind(), {"max_tries=" + std::to_string(max_tries_)});
}

void* failure_callback_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  // A resource that is a user's function says that memory ran out by out_of_memory, with a text of its own.
  std::exception_ptr why;
  const auto attempt = [&]() -> void* {
    why = nullptr;
    try {
      return next().try_allocate(stream, bytes, alignment);
    } catch (const out_of_memory&) {
      why = std::current_exception();
      return nullptr;
    }
  };

  const auto program_says_again = [&](std::size_t tries) {
    const unidentified_scope unidentified;
    return ask_(bytes, stream, tries);
  };

  void* pointer = attempt();
  if (pointer == nullptr && next().trim() > 0) pointer = attempt();
  for (std::size_t tries = 1; pointer == nullptr && tries <= max_tries_ && program_says_again(tries); ++tries) {
    pointer = attempt();
  }
  if (pointer == nullptr && why) std::rethrow_exception(why);
  return pointer;
}

void failure_callback_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                      std::size_t alignment) {
  next().deallocate(stream, pointer, bytes, alignment);
}

}  // namespace cenote::inline v1
