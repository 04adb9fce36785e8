#include "cenote/memory_resource.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/driver/nvtx.hpp"
#include "cenote/driver/nvtx_memory.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/unnamed_stream.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/ladder.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/pressure.hpp"
#include "cenote/resource_adaptor.hpp"

namespace cenote::inline v1 {
namespace {

nvtx::role role_of(const memory_resource& resource) noexcept {
  if (dynamic_cast<const resource_adaptor*>(&resource) != nullptr) return nvtx::role::passes_on;
  return resource.upstream() ? nvtx::role::cuts : nvtx::role::asks_the_driver;
}

/// How deep a resource on `upstream` stands; also where a program's resources between do not say how deep they do.
int depth_above(const std::shared_ptr<memory_resource>& upstream, const char* kind, int more) {
  int above = 1, deepest = 0;
  for (std::shared_ptr<const memory_resource> under = upstream; under; under = under->upstream()) {
    deepest = std::max(deepest, above + under->depth() + more);
    if (deepest > memory_resource::max_depth) {
      throw std::invalid_argument(std::string(kind) + " cannot stand on so many resources: at most " +
                                  std::to_string(memory_resource::max_depth) +
                                  " stand on each other. Is an adaptor put on again and again, as in a loop?");
    }
    ++above;
  }
  return deepest;
}

/// Whether the stack stands on memory that counts for the budget.
bool counts_for_budget(const memory_resource& resource) {
  std::string source = resource.kind();
  for (auto under = resource.upstream(); under; under = under->upstream()) source = under->kind();
  return source == "cuda" || source == "virtual" || source == "async";
}

/// The smallest limit holds: where that is the budget, it is the one that the error names, with who has set it.
void bound_by_budget(const memory_resource& resource, memory_state& figures, shortage& known) {
  if (!counts_for_budget(resource) || !has_budget(resource.device())) return;
  const budget_figures budget = budget_of(resource.device());
  if (!budget.limit || (figures.limit && *figures.limit <= *budget.limit)) return;
  figures.limit = budget.limit;
  known.limited_by = "the budget of the process on the device, of which " + format_bytes(budget.shared) +
                     " is held (set by " + budget.set_by + ")";
}

[[noreturn]] CENOTE_COLD void refuse_alignment(std::size_t alignment) {
  throw std::invalid_argument("alignment must be a power of two, not " + std::to_string(alignment));
}

/// Reports the exception that is being handled.
CENOTE_COLD void report_failed_free(const void* pointer) noexcept {
  free_correction::say(pointer, 0);
  try {
    throw;
  } catch (const std::exception& error) {
    report_once("a block is leaked, as freeing it failed: ", error.what());
  } catch (...) {
    report_once("a block is leaked, as freeing it failed");
  }
}

/// Reports a size that no block has. Returns 0: the block counts as nothing.
CENOTE_COLD std::size_t report_impossible_size(std::size_t bytes) noexcept {
  report_once("a block was freed as one of ", bytes, " bytes, which no block has; it is freed as one of none");
  return 0;
}

}  // namespace

memory_resource::memory_resource(const std::shared_ptr<memory_resource>& upstream, const char* kind, int more)
    : device_(require_upstream(upstream, kind)->device()), depth_(depth_above(upstream, kind, more)) {}

CENOTE_HOT void* memory_resource::allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* const pointer = try_allocate(stream, bytes, alignment);
  if (pointer != nullptr || bytes == 0) return pointer;
  return allocate_under_pressure(stream, bytes, alignment);
}

void* memory_resource::allocate_under_pressure(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  void* pointer = nullptr;
  auto steps = relieve_pressure(*this, stream, bytes, [&] {
    pointer = try_allocate(stream, bytes, alignment);
    return pointer != nullptr;
  });
  if (pointer == nullptr) throw shortage_of(stream, bytes, std::move(steps), alignment);
  return pointer;
}

out_of_memory memory_resource::shortage_of(stream_ref stream, std::size_t bytes, std::vector<relief_step> steps,
                                           std::size_t alignment) const {
  shortage known;
  known.rounded = align_up(bytes, default_alignment);
  if (alignment > default_alignment) known.alignment = alignment;
  known.device = device_;
  known.stream = reinterpret_cast<std::uintptr_t>(stream.value());
  known.resource = describe(*this);
  known.steps = ladder::take();
  known.steps.insert(known.steps.end(), std::make_move_iterator(steps.begin()), std::make_move_iterator(steps.end()));
  memory_state figures = state();
  bound_by_budget(*this, figures, known);
  out_of_memory error(bytes, figures, std::move(known));
  if (should_log(log_level::debug)) log(log_level::debug, error.what());
  nvtx::mark("out_of_memory", bytes);
  return error;
}

CENOTE_HOT void* memory_resource::try_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  if (!is_power_of_two(alignment)) refuse_alignment(alignment);
  if (bytes == 0 || bytes > max_allocation || alignment > max_allocation) return nullptr;
  if (is_inherited()) [[unlikely]]
    refuse_in_forked_child();  // else a pool would hand out what the parent left in it
  alignment = std::max(alignment, default_alignment);
  if (nvtx::is_on()) [[unlikely]]
    return allocate_in_range(stream, bytes, alignment);
  return allocate_block(stream, bytes, alignment);
}

/// Gives back what nobody could work with: a pool would cut it into blocks as if it were aligned.
void memory_resource::refuse(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
  deallocate(stream, pointer, bytes, alignment);
  throw std::runtime_error("'" + describe(*this) + "' gave the address " + format_address(pointer) + " for " +
                           std::to_string(bytes) + " bytes: it must be a multiple of " + std::to_string(alignment) +
                           ", and the block must end within the address space");
}

CENOTE_HOT void memory_resource::deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                            std::size_t alignment) noexcept {
  if (pointer == nullptr || is_gone()) return;
  if (bytes > max_allocation) [[unlikely]]
    bytes = report_impossible_size(bytes);
  free_correction::forget();
  try {
    if (nvtx::is_on()) [[unlikely]]
      return deallocate_in_range(stream, pointer, bytes, std::max(alignment, default_alignment));
    do_deallocate(stream, pointer, bytes, std::max(alignment, default_alignment));
  } catch (...) {
    report_failed_free(pointer);
  }
}

CENOTE_HOT void* memory_resource::allocate_at_once(stream_ref stream, std::size_t bytes,
                                                   std::size_t alignment) noexcept {
  if (!is_power_of_two(alignment) || bytes == 0 || bytes > max_allocation || alignment > max_allocation) return nullptr;
  if (nvtx::is_on() || is_inherited()) [[unlikely]]
    return nullptr;
  try {
    return do_allocate_at_once(stream, bytes, std::max(alignment, default_alignment));
  } catch (...) {
    return nullptr;  // who asks again, and may wait, hears why
  }
}

CENOTE_HOT bool memory_resource::deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes,
                                                    std::size_t alignment) noexcept {
  if (pointer == nullptr || is_gone()) return true;
  if (nvtx::is_on() || bytes > max_allocation) [[unlikely]]
    return false;
  free_correction::forget();
  try {
    return do_deallocate_at_once(stream, pointer, bytes, std::max(alignment, default_alignment));
  } catch (...) {
    return false;
  }
}

void* memory_resource::allocate_in_range(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const nvtx::call call(nvtx::call::verb::allocate, role_of(*this), bytes);
  void* const pointer = allocate_block(stream, bytes, alignment);
  if (pointer != nullptr && call.is_of_a_part()) nvtx::region_begins(pointer, bytes, device());
  return pointer;
}

void memory_resource::deallocate_in_range(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) {
  const nvtx::role role = role_of(*this);
  const nvtx::call call(nvtx::call::verb::deallocate, role, bytes);
  nvtx::region_ends(pointer, stream, device());  // also within an allocate: a program's callback may free blocks
  if (role == nvtx::role::asks_the_driver) nvtx::heap_ends(pointer);
  do_deallocate(stream, pointer, bytes, alignment);
}

void* memory_resource::allocate_sync(std::size_t bytes, std::size_t alignment) {
  if (bytes == 0 || !is_stream_ordered()) return allocate({}, bytes, alignment);
  const unnamed_stream stream(device());
  void* const pointer = allocate(stream.view(), bytes, alignment);
  if (pointer == nullptr) return pointer;
  try {
    stream.synchronize();
  } catch (...) {
    deallocate(stream.view(), pointer, bytes, alignment);
    throw;
  }
  return pointer;
}

void memory_resource::deallocate_sync(void* pointer, std::size_t bytes, std::size_t alignment) noexcept {
  if (pointer == nullptr || is_gone()) return;
  std::optional<unnamed_stream> stream;
  try {
    stream.emplace(device());
    stream->synchronize();
  } catch (const std::exception& error) {
    report_once(error.what());
  }
  deallocate(stream ? stream->view() : stream_ref{}, pointer, bytes, alignment);
}

std::vector<relief_step> relieve_pressure(const memory_resource& resource, stream_ref stream, std::size_t bytes,
                                          const std::function<bool()>& retry) {
  if (bytes > max_allocation || pressure_handlers().empty()) return {};
  if (is_capturing(stream, resource.device())) {
    return {{"pressure handlers", {}, "skipped: the stream is being captured"}};
  }
  auto steps = relieve_pressure(bytes, resource.device(), retry);
  for (const relief_step& each : steps) {
    recorder::note(recorder::event::relief, resource.device(), nullptr, each.freed_bytes.value_or(0), {});
  }
  return steps;
}

memory_state memory_resource::state() const {
  if (const auto under = upstream()) return under->state();
  const auto memory = device_memory_info(device());
  memory_state figures;
  figures.device_free = memory.free_bytes;
  figures.device_total = memory.total_bytes;
  return figures;
}

std::size_t memory_resource::trim(std::size_t keep_bytes, bool wait) {
  const auto under = upstream();
  if (!under) return 0;
  const nvtx::trim_range range(keep_bytes);
  return under->trim(keep_bytes, wait);
}

void memory_resource::check() const {
  if (const auto under = upstream()) under->check();
}

std::string describe(const memory_resource& resource) {
  std::string text = resource.specification();
  for (auto under = resource.upstream(); under; under = under->upstream()) text += " | " + under->specification();
  return text;
}

std::string spell_specification(const std::string& kind, std::initializer_list<std::string> parameters) {
  std::string text = kind;
  char separator = ':';
  for (const std::string& parameter : parameters) {
    if (parameter.empty()) continue;
    text += separator + parameter;
    separator = ',';
  }
  return text;
}

std::shared_ptr<memory_resource> require_upstream(std::shared_ptr<memory_resource> upstream, const char* resource) {
  if (!upstream) throw std::invalid_argument(std::string(resource) + " needs an upstream resource, not null");
  return upstream;
}

}  // namespace cenote::inline v1
