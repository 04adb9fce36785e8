#include "support/failing_host_memory.hpp"

#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string_view>

namespace cenote::test {

constinit thread_local host_memory_shortage* current_shortage = nullptr;

namespace {

/// Which library of cenote's a request comes from, by the innermost frame that is one's.
class libraries_of_cenote {
 public:
  libraries_of_cenote() {
    std::array<void*, 1> frame;
    backtrace(frame.data(), 1);  // which loads what it needs
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* self) {
          const std::string_view name(info->dlpi_name);
          auto& of = *static_cast<libraries_of_cenote*>(self);
          if (name.find("libcenote.so") != name.npos) of.core_ = addresses_of(*info);
          if (name.find("libcenote_sim.so") != name.npos) of.driver_ = addresses_of(*info);
          return 0;
        },
        this);
  }

  bool is_request_of_the_core() const {
    std::array<void*, 32> frames;
    const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
    for (int i = 0; i < count; ++i) {
      if (driver_.hold(frames[static_cast<std::size_t>(i)])) return false;
      if (core_.hold(frames[static_cast<std::size_t>(i)])) return true;
    }
    return false;
  }

 private:
  struct addresses {
    std::uintptr_t begin = std::numeric_limits<std::uintptr_t>::max();
    std::uintptr_t end = 0;
    bool hold(const void* code) const {
      const auto at = reinterpret_cast<std::uintptr_t>(code);
      return begin <= at && at < end;
    }
  };
  static addresses addresses_of(const dl_phdr_info& info) {
    addresses all;
    for (int i = 0; i < info.dlpi_phnum; ++i) {
      const auto& segment = info.dlpi_phdr[i];
      if (segment.p_type != PT_LOAD) continue;
      all.begin = std::min<std::uintptr_t>(all.begin, info.dlpi_addr + segment.p_vaddr);
      all.end = std::max<std::uintptr_t>(all.end, info.dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
    return all;
  }
  addresses core_, driver_;
};

bool request_fails(std::size_t bytes) {
  host_memory_shortage* const shortage = current_shortage;
  if (shortage == nullptr) return false;
  const bool is_counted = bytes >= shortage->counts_from;
  if (!is_counted && shortage->failures == 0) return false;
  current_shortage = nullptr;  // what follows asks for memory too
  static const libraries_of_cenote libraries;
  const bool is_cores = libraries.is_request_of_the_core();
  current_shortage = shortage;
  if (!is_cores) return false;
  if (is_counted) shortage->counted_bytes += bytes;
  if (shortage->failures == 0 || shortage->served_before-- > 0) return false;
  shortage->served_before = 0;
  --shortage->failures;
  return shortage->has_begun = true;
}

void* host_memory(std::size_t bytes, std::size_t alignment) noexcept {
  if (request_fails(bytes)) return nullptr;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes != 0 ? bytes : 1);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* host_memory_or_throw(std::size_t bytes, std::size_t alignment) {
  if (void* const memory = host_memory(bytes, alignment)) return memory;
  throw std::bad_alloc();
}

}  // namespace
}  // namespace cenote::test

// noinline: GCC warns of free() where it is inlined.
#define CENOTE_REPLACED [[gnu::noinline]]
CENOTE_REPLACED void* operator new(std::size_t bytes) { return cenote::test::host_memory_or_throw(bytes, 1); }
CENOTE_REPLACED void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return cenote::test::host_memory_or_throw(bytes, static_cast<std::size_t>(alignment));
}
CENOTE_REPLACED void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return cenote::test::host_memory(bytes, 1);
}
CENOTE_REPLACED void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return cenote::test::host_memory(bytes, static_cast<std::size_t>(alignment));
}
CENOTE_REPLACED void operator delete(void* memory) noexcept { std::free(memory); }
CENOTE_REPLACED void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
CENOTE_REPLACED void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
CENOTE_REPLACED void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
CENOTE_REPLACED void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
CENOTE_REPLACED void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
#undef CENOTE_REPLACED
