// Any text is a specification or is refused with std::invalid_argument. The words of one that is accepted are the same
// once more when they are put together again, and a resource that it describes can be allocated from.
//
// libFuzzer: the first argument is a folder of texts to begin with, which tests/python/test_fuzzers.py writes.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cenote/ground/error.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/surface/specification.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " | ") + word;
  return text;
}

void allocate_from(const std::string& specification) {
  try {
    const auto resource = cenote::make_resource(specification, 0);
    void* const block = resource->try_allocate({}, 1000);
    resource->check();
    resource->deallocate({}, block, 1000);
  } catch (const std::logic_error&) {  // values that do not go together
  } catch (const cenote::out_of_memory&) {
  } catch (const std::runtime_error&) {  // what the device does not have, or refuses
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("CENOTE_CUDA_DRIVER", "sim", 1);
  setenv("CENOTE_SIM", "devices=2,memory=64MiB", 1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  try {
    cenote::check_specification(text);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  const auto words = cenote::specification_words(text);
  require(cenote::specification_words(joined(words)) == words);
  if (text.find("logging") == std::string::npos) allocate_from(text);  // which would write to any file that is named
  return 0;
}
