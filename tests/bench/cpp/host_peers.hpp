// The allocators of the host, as the floor of any bookkeeping: mimalloc, and malloc of the C library.
//
// mimalloc is loaded while the program runs and its calls are taken by name: linked, its library would replace malloc.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>

#include "peer.hpp"

namespace bench {

/// A stream of no device: the host's allocators take none.
struct no_stream {
  CUstream handle() const noexcept { return nullptr; }
};

class malloc_peer {
 public:
  static constexpr bool on_device = false;
  static constexpr bool forgets = false;
  using own_stream = no_stream;

  void* allocate(CUstream, std::size_t bytes) { return std::malloc(bytes); }
  void deallocate(CUstream, void* pointer, std::size_t) noexcept { std::free(pointer); }
  counts counters() const { return {}; }
  bool trim() { return false; }
};

class mimalloc_peer {
 public:
  static constexpr bool on_device = false;
  static constexpr bool forgets = false;
  using own_stream = no_stream;

  struct calls {
    void* (*allocate)(std::size_t) = nullptr;
    void (*free)(void*) = nullptr;
    int (*version)() = nullptr;
  };

  /// The library that BENCH_MIMALLOC names, or the system's; std::runtime_error if there is none.
  static const calls& load() {
    static const calls loaded = [] {
      const char* named = std::getenv("BENCH_MIMALLOC");
      void* library = nullptr;
      for (const char* name : {named ? named : "", "libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"})
        if (*name && (library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
      if (library == nullptr)
        throw std::runtime_error("libmimalloc was not found: install it, or set BENCH_MIMALLOC to its path");
      return calls{reinterpret_cast<void* (*)(std::size_t)>(dlsym(library, "mi_malloc")),
                   reinterpret_cast<void (*)(void*)>(dlsym(library, "mi_free")),
                   reinterpret_cast<int (*)()>(dlsym(library, "mi_version"))};
    }();
    return loaded;
  }

  static std::string version() {
    const int number = load().version();
    return std::to_string(number / 100) + "." + std::to_string(number / 10 % 10) + "." + std::to_string(number % 10);
  }

  void* allocate(CUstream, std::size_t bytes) { return calls_.allocate(bytes); }
  void deallocate(CUstream, void* pointer, std::size_t) noexcept { calls_.free(pointer); }
  counts counters() const { return {}; }
  bool trim() { return false; }

 private:
  calls calls_ = load();
};

}  // namespace bench
