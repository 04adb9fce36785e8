#include "cenote/ground/host_table.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "cenote/ground/bytes.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t large_page = 2 * MiB;

bool is_large(std::size_t bytes) noexcept { return bytes >= large_page; }

std::byte* map(std::size_t bytes) {
  void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(mapped);
}

void unmap(std::byte* from, std::byte* to) noexcept {
  if (from != to) munmap(from, static_cast<std::size_t>(to - from));
}

/// Mapped at a multiple of a large page: what lies before and after is given back.
std::byte* map_large(std::size_t bytes) {
  std::byte* const begin = map(bytes + large_page);
  auto* const table = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<std::uintptr_t>(begin), large_page));
  unmap(begin, table);
  unmap(table + bytes, begin + bytes + large_page);
  madvise(table, bytes, MADV_HUGEPAGE);  // a wish: where it is not granted, pages are small
  return table;
}

}  // namespace

void* allocate_host_table(std::size_t bytes) {
  return is_large(bytes) ? map_large(align_up(bytes, large_page)) : map(bytes);
}

void release_host_table(void* table, std::size_t bytes) noexcept {
  munmap(table, is_large(bytes) ? align_up(bytes, large_page) : bytes);
}

}  // namespace cenote::inline v1
