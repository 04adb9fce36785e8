#include "cenote/resources/arena_memory_resource.hpp"

#include <cstring>
#include <stdexcept>
#include <string_view>

#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/ground/output_file.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::size_t smallest_arena = 1 * MiB;

}  // namespace

arena_memory_resource::checked_size arena_memory_resource::check_size(const std::shared_ptr<memory_resource>& upstream,
                                                                      std::optional<std::size_t> wanted) {
  const int device = require_upstream(upstream, "arena")->device();
  const std::size_t bytes = align_down(wanted ? *wanted : free_within_budget(device) / 2, default_alignment);
  if (bytes >= smallest_arena) return {bytes};
  throw std::logic_error("an arena needs at least " + format_bytes(smallest_arena) + ", not " + format_bytes(bytes));
}

arena_memory_resource::arena_memory_resource(std::shared_ptr<memory_resource> upstream,
                                             std::optional<std::size_t> arena_size, bool dump_log_on_failure)
    : arena_memory_resource(upstream, check_size(upstream, arena_size), dump_log_on_failure) {}

arena_memory_resource::arena_memory_resource(std::shared_ptr<memory_resource> upstream, checked_size size,
                                             bool dump_log_on_failure)
    : memory_resource(upstream, "arena"),
      arena_size_(size.bytes),
      pool_(std::move(upstream), size.bytes, size.bytes),
      dump_log_on_failure_(dump_log_on_failure) {}

std::string arena_memory_resource::specification() const {
  return spell_specification(kind(), {"size=" + spell_bytes(arena_size()), dump_log_on_failure_ ? "dump=true" : ""});
}

void* arena_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = pool_.try_allocate(stream, bytes, alignment);
  if (pointer == nullptr && dump_log_on_failure_) dump(bytes);
  return pointer;
}

void arena_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
  pool_.deallocate(stream, pointer, bytes, alignment);
}

void arena_memory_resource::dump(std::size_t failed_bytes) const noexcept {
  try {
    const std::string text = "# " + std::to_string(failed_bytes) + " bytes could not be allocated from '" +
                             describe(*this) + "' on device " + std::to_string(device()) + "\n" + pool_.map();
    output_file file("file", dump_file_name, output_file::sharing::appended);
    const std::string_view whole = text;
    file.write({&whole, 1});
    if (const int error = file.flush(); error != 0) {
      report_once("the map of an arena could not be written to ", dump_file_name, ": ", std::strerror(error));
    }
  } catch (const std::exception& error) {
    report_once("the map of an arena could not be written: ", error.what());
  }
}

}  // namespace cenote::inline v1
