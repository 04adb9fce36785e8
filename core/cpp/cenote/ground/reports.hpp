// The reports that the process has made (report_once, error.hpp), counted, so that a test can assert that there were
// none: a block that is leaked, a pool that ends with blocks in use, a free that failed.
//
// Every report counts, also one that the log has had before and does not repeat. The texts of the first few since the
// last clear are kept, cut to a length, in static memory: a report needs none of the host's.
//
// Threads: all functions from any thread. Cost: one mutex a report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/ground/text_part.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

constexpr std::size_t max_kept_reports = 64;
constexpr std::size_t max_kept_report_bytes = 512;

/// Called by report_once for every report.
CENOTE_EXPORT void note_report(std::initializer_list<text_part> parts) noexcept;

/// Reports since the last clear.
CENOTE_EXPORT std::uint64_t report_count() noexcept;

/// The first of them, oldest first.
CENOTE_EXPORT std::vector<std::string> kept_reports();

CENOTE_EXPORT void clear_reports() noexcept;

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
