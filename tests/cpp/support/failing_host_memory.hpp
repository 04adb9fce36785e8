// Host memory that runs out: the nth next request of the core fails, and as many after it as are said. The test's own
// requests and those of the simulated driver are served.
//
// The source file replaces the program's operator new. It knows a request of the core by its place in libcenote.so.
#pragma once

#include <cstddef>
#include <limits>

namespace cenote::test {

/// Nothing fails while there are no failures left.
struct host_memory_shortage {
  long served_before = 0;
  long failures = 0;
  bool has_begun = false;
  std::size_t counts_from = std::numeric_limits<std::size_t>::max();  ///< smaller requests are not counted
  std::size_t counted_bytes = 0;                                      ///< of the core's requests
};

/// The calling thread's; null while all of its requests are served.
extern constinit thread_local host_memory_shortage* current_shortage;

}  // namespace cenote::test
