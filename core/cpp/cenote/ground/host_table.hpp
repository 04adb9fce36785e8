// Zeroed memory of the host for a table, in large pages where it has two megabytes or more: a table that is read at
// random costs a look into the page tables as well as into memory, and large pages spare the first.
//
// The system brings pages when they are first touched, so that a table takes what is used of it, up to one page. It
// starts at a page.
//
// Threads: as for any memory. Cost: a system call, and the rest of a page.
#pragma once

#include <cstddef>
#include <memory>

namespace cenote::inline v1 {

/// Throws std::bad_alloc.
void* allocate_host_table(std::size_t bytes);
void release_host_table(void* table, std::size_t bytes) noexcept;

struct host_table_release {
  std::size_t bytes = 0;
  void operator()(void* table) const noexcept { release_host_table(table, bytes); }
};

/// `count` values whose bytes are all zero; T needs no constructor and no destructor.
template <class T>
using host_table = std::unique_ptr<T[], host_table_release>;

template <class T>
host_table<T> make_host_table(std::size_t count) {
  return host_table<T>(static_cast<T*>(allocate_host_table(count * sizeof(T))), host_table_release{count * sizeof(T)});
}

}  // namespace cenote::inline v1
