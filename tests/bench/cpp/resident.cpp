#include "resident.hpp"

#include <malloc.h>
#include <unistd.h>

#include <fstream>

namespace bench {

std::size_t resident_bytes() {
  malloc_trim(0);
  std::size_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace bench
