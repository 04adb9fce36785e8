// How much more memory the host can give to this process, as far as the system tells: what Linux calls available, and
// what the control groups of the process leave of their limits. Whoever takes more is killed, rather than told.
//
// Threads: any. Two that ask at once are told of the same memory. Cost: a few files are read, 50 to 150 µs.
// Source: proc(5), MemAvailable; cgroups(7), and the documents of the kernel on the memory controller, versions 1
// and 2.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace cenote::inline v1 {

/// Returns bytes; nothing where the system tells nothing. The system's files are looked for below `root`.
std::optional<std::size_t> available_host_memory(const std::string& root = {});

}  // namespace cenote::inline v1
