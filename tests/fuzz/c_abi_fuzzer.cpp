// Any sequence of calls of the C interface: each returns what cenote.h says, no two live blocks share a byte, and what
// is freed twice, or was never given out, is refused.
//
// The input is a program: a byte names the call, the bytes behind it are its arguments. libFuzzer.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "cenote/cenote.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

/// Reads arguments off the input; zeros where it has ended.
class reader {
 public:
  reader(const std::uint8_t* bytes, std::size_t size) : next_(bytes), end_(bytes + size) {}
  bool at_end() const { return next_ == end_; }
  std::uint8_t byte() { return at_end() ? 0 : *next_++; }

  /// Mostly small; now and then any.
  std::size_t size() {
    const std::size_t small = byte() * std::size_t{256} + byte();
    return byte() % 16 != 0 ? small : small << (byte() % 64);
  }

  std::string text() {
    std::string read;
    for (std::uint8_t length = byte() % 64; length > 0; --length) read += static_cast<char>(byte());
    return read;
  }

 private:
  const std::uint8_t* next_;
  const std::uint8_t* end_;
};

bool is_status(int status) { return status <= 0 && status >= CENOTE_FAILURE; }

/// The blocks that are live: begin and bytes.
class model {
 public:
  void insert(void* block, std::size_t bytes) {
    auto* const begin = static_cast<std::byte*>(block);
    const auto above = live_.lower_bound(begin);
    require(above == live_.end() || begin + bytes <= above->first);
    require(above == live_.begin() || std::prev(above)->first + std::prev(above)->second <= begin);
    live_.emplace(begin, bytes);
  }

  /// One of the live ones, or null where there is none.
  void* any(std::size_t number) const {
    if (live_.empty()) return nullptr;
    auto found = live_.begin();
    std::advance(found, number % live_.size());
    return found->first;
  }

  void erase(void* block) { live_.erase(static_cast<std::byte*>(block)); }
  bool empty() const { return live_.empty(); }

 private:
  std::map<std::byte*, std::size_t> live_;
};

void allocate(reader& input, model& live) {
  const int client = input.byte() % 4 - 1, device = input.byte() % 4 - 1;
  const std::size_t bytes = input.size();
  void* const block = input.byte() % 8 == 0 ? cenote_allocate_sync(client, device, bytes)
                                            : cenote_allocate(client, device, bytes, nullptr);
  if (block != nullptr) {
    live.insert(block, bytes);
  } else if (bytes != 0) {
    require(is_status(cenote_last_status()) && cenote_last_status() != CENOTE_OK && *cenote_last_error() != '\0');
  }
}

void free_one(reader& input, model& live) {
  void* const block = live.any(input.byte());
  if (block == nullptr) return;
  live.erase(block);
  require((input.byte() % 8 == 0 ? cenote_deallocate_sync(block) : cenote_deallocate(block, nullptr)) == CENOTE_OK);
  require(cenote_deallocate(block, nullptr) == CENOTE_UNKNOWN_POINTER);
}

void set_resource(reader& input) {
  static constexpr const char* ready[] = {"cuda",
                                          "pool:initial=0 | cuda",
                                          "statistics | pool:initial=1MiB,max=8MiB",
                                          "guard | pool:initial=0",
                                          "limiting:limit=1MiB | cuda",
                                          "arena | cuda"};
  const int device = input.byte() % 4 - 1;
  const std::uint8_t which = input.byte();
  const std::string own = which < std::size(ready) ? "" : input.text();
  if (own.find("logging") != std::string::npos) return;  // it would write to any file that is named
  require(is_status(cenote_set_device_resource(device, which < std::size(ready) ? ready[which] : own.c_str())));
}

void ask(reader& input) {
  const int device = input.byte() % 4 - 1;
  cenote_memory_state state{};
  state.struct_size = input.byte() % 2 == 0 ? sizeof state : input.byte();
  require(is_status(cenote_get_memory_state(device, &state)));
  cenote_client_usage usage{};
  usage.struct_size = sizeof usage;
  require(is_status(cenote_get_client_usage(input.byte() % 8 - 1, &usage)));
  char text[32];
  const std::size_t capacity = input.byte() % sizeof text;
  const std::int64_t length = cenote_get_device_resource(device, text, capacity);
  require(length < 0 || capacity == 0 || std::strlen(text) < capacity);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  setenv("CENOTE_CUDA_DRIVER", "sim", 1);
  setenv("CENOTE_SIM", "devices=2,memory=64MiB", 1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  reader input(bytes, size);
  model live;
  while (!input.at_end()) {
    switch (input.byte() % 8) {
      case 0:
      case 1:
        allocate(input, live);
        break;
      case 2:
      case 3:
        free_one(input, live);
        break;
      case 4:
        set_resource(input);
        break;
      case 5:
        ask(input);
        break;
      case 6:
        cenote_trim(input.byte() % 4 - 1);
        break;
      case 7: {
        void* const block = live.any(input.byte());
        require(block == nullptr || cenote_record_stream(block, nullptr) == CENOTE_OK);
        require(is_status(cenote_reset_device_resource(input.byte() % 4 - 1)));
        break;
      }
    }
  }
  while (!live.empty()) {
    void* const block = live.any(0);
    live.erase(block);
    require(cenote_deallocate(block, nullptr) == CENOTE_OK);
  }
  return 0;
}
