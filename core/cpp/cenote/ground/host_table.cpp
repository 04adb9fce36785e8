#include "cenote/ground/host_table.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "cenote/ground/bytes.hpp"

namespace cenote {
namespace {

constexpr std::size_t large_page = 2 * MiB;

bool is_large(std::size_t bytes) noexcept { return bytes >= large_page; }

void unmap(std::byte* from, std::byte* to) noexcept {
  if (from != to) munmap(from, static_cast<std::size_t>(to - from));
}

/// Mapped at a multiple of a large page: what lies before and after is given back.
void* map_aligned(std::size_t bytes) {
  void* const mapped =
      mmap(nullptr, bytes + large_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<std::byte*>(mapped);
  auto* const table = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<std::uintptr_t>(begin), large_page));
  unmap(begin, table);
  unmap(table + bytes, begin + bytes + large_page);
  madvise(table, bytes, MADV_HUGEPAGE);  // a wish: where it is not granted, pages are small
  return table;
}

}  // namespace

void* allocate_host_table(std::size_t bytes) {
  if (is_large(bytes)) return map_aligned(align_up(bytes, large_page));
  void* const table = std::calloc(1, bytes);
  if (table == nullptr) throw std::bad_alloc();
  return table;
}

void release_host_table(void* table, std::size_t bytes) noexcept {
  if (is_large(bytes)) {
    munmap(table, align_up(bytes, large_page));
  } else {
    std::free(table);
  }
}

}  // namespace cenote
