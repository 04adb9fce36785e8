#include "cenote/adaptors/guard_resource_adaptor.hpp"

#include <algorithm>
#include <stdexcept>

#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {
namespace {

constexpr unsigned char pattern = 0xA5;  // neither text nor a small number, and as a float about -3e-16

/// A program that writes outside of its blocks does it often.
constexpr int most_reports = 100;

}  // namespace

std::string overrun::text() const {
  return "the guard adaptor: " + std::to_string(wrong_bytes) + (wrong_bytes == 1 ? " byte was" : " bytes were") +
         " written outside of the block of " + std::to_string(bytes) + " bytes at " + format_address(pointer) +
         ": the first at offset " + std::to_string(offset) + (offset < 0 ? ", before its start" : ", after its end") +
         "; it was allocated on stream " + format_address(stream.value()) +
         (allocated_from.empty() ? "" : ", from\n" + allocated_from);
}

guard_resource_adaptor::guard_resource_adaptor(std::shared_ptr<memory_resource> upstream, std::size_t guard_bytes)
    : resource_adaptor(std::move(upstream), "guard"), guard_bytes_(guard_bytes) {
  if (guard_bytes != 0 && guard_bytes <= most_guard_bytes) return;
  throw std::invalid_argument("a guard has at least 1 byte and at most " + spell_bytes(most_guard_bytes) + ", not " +
                              spell_bytes(guard_bytes));
}

std::string guard_resource_adaptor::specification() const {
  return spell_specification(
      kind(), {guard_bytes_ == default_guard_bytes ? std::string{} : "bytes=" + spell_bytes(guard_bytes_)});
}

/// What is in use includes the guards, as it is the upstream's.
memory_state guard_resource_adaptor::state() const {
  memory_state figures = next().state();
  const std::size_t guards = room_for(0, default_alignment);
  if (figures.largest_free) *figures.largest_free -= std::min(*figures.largest_free, guards);
  return figures;
}

std::vector<overrun> guard_resource_adaptor::find_overruns() const {
  if (is_capture_underway(device())) {
    throw std::logic_error("the guards cannot be looked at while a stream of the device is being captured");
  }
  const std::lock_guard looking(looking_);
  std::vector<std::pair<std::byte*, guarded_block>> blocks;
  {
    const std::lock_guard lock(mutex_);
    blocks.assign(blocks_.begin(), blocks_.end());
  }
  if (!blocks.empty()) synchronize_device(device());
  for (const auto& [block, known] : blocks) {
    if (known.filled != nullptr) known.filled->synchronize();  // which may be on a stream of another device
  }
  std::vector<overrun> found;
  for (const auto& [block, known] : blocks) {
    auto seen = look({}, block, known);
    if (!seen) continue;
    if (!known.is_reported) {
      overruns_found_.fetch_add(1, std::memory_order_relaxed);
      const std::lock_guard lock(mutex_);
      blocks_.at(block).is_reported = true;
    }
    found.push_back(std::move(*seen));
  }
  return found;
}

/// No wrap: bytes are below 2^63, an alignment is at most 2^62, a guard is small. Too much is refused by the upstream.
std::size_t guard_resource_adaptor::room_for(std::size_t bytes, std::size_t alignment) const noexcept {
  return room_before(alignment) + bytes + guard_bytes_;
}

bool guard_resource_adaptor::may_touch_guards(stream_ref stream) const {
  if (!is_capturing(stream, device()) && accepts_work(stream, device())) return true;
  report_once("the guard adaptor: blocks that are allocated or freed on a stream in a capture are not looked at");
  return false;
}

std::shared_ptr<event> guard_resource_adaptor::fill_guards(stream_ref stream, std::byte* block,
                                                           std::size_t bytes) const {
  fill_async(block - guard_bytes_, pattern, guard_bytes_, stream, device());
  fill_async(block + bytes, pattern, guard_bytes_, stream, device());
  return event::record_anywhere(stream, device());
}

/// Before a block is looked at and goes back: its stream may be another than the one on which its guards are filled,
/// and whoever has the memory next must not find them written late. Where the stream cannot wait, the host does.
void guard_resource_adaptor::order_after_fill(stream_ref stream, const guarded_block& known) const {
  if (known.filled == nullptr) return;
  try {
    const relaxed_capture_scope relaxed;
    if (known.filled->is_complete()) return;
    if (!is_capturing(stream, device()) && accepts_work(stream, device())) return wait(stream, *known.filled, device());
    known.filled->synchronize();
  } catch (const cuda_error&) {
    const relaxed_capture_scope relaxed;
    known.filled->synchronize();
  }
}

void* guard_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  const std::size_t room = room_for(bytes, alignment);
  auto* const base = static_cast<std::byte*>(next().try_allocate(stream, room, alignment));
  if (base == nullptr) return nullptr;
  std::byte* const block = base + room_before(alignment);
  try {
    auto filled = may_touch_guards(stream) ? fill_guards(stream, block, bytes) : nullptr;
    const std::lock_guard lock(mutex_);
    blocks_.insert_or_assign(block, guarded_block{bytes, alignment, stream, std::move(filled)});
  } catch (...) {
    next().deallocate(stream, base, room, alignment);
    throw;
  }
  return block;
}

void guard_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t) {
  const auto known = take_out(pointer);
  if (!known) {
    report("the block of ", bytes, " bytes at ", pointer,
           " was freed, but it is not outstanding: freed twice, or allocated elsewhere");
    return free_correction::say(pointer, 0);
  }
  if (known->bytes != bytes) {
    report("the block of ", known->bytes, " bytes at ", pointer, " was freed as one of ", bytes, " bytes");
  }
  auto* const block = static_cast<std::byte*>(pointer);
  order_after_fill(stream, *known);  // where that fails the block is leaked: its guards may be written to still
  look_before_free(stream, block, *known);
  next().deallocate(stream, block - room_before(known->alignment), room_for(known->bytes, known->alignment),
                    known->alignment);
  if (known->bytes != bytes) free_correction::say(pointer, known->bytes);
}

std::optional<guard_resource_adaptor::guarded_block> guard_resource_adaptor::take_out(void* pointer) noexcept {
  const std::lock_guard looking(looking_);
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(static_cast<std::byte*>(pointer));
  if (found == blocks_.end()) return std::nullopt;
  guarded_block known = std::move(found->second);
  blocks_.erase(found);
  return known;
}

void guard_resource_adaptor::look_before_free(stream_ref stream, std::byte* block,
                                              const guarded_block& known) noexcept {
  try {
    if (known.filled == nullptr || known.is_reported || !may_touch_guards(stream)) return;
    const auto found = look(stream, block, known);
    if (!found) return;
    overruns_found_.fetch_add(1, std::memory_order_relaxed);
    report(found->text());
  } catch (const std::exception& error) {
    report_once("the guard adaptor could not look at the guards of a block that was freed: ", error.what());
  }
}

std::optional<overrun> guard_resource_adaptor::look(stream_ref stream, std::byte* block,
                                                    const guarded_block& known) const {
  if (known.filled == nullptr) return std::nullopt;
  std::vector<unsigned char> guards(2 * guard_bytes_);
  copy_async(guards.data(), block - guard_bytes_, guard_bytes_, stream, device());
  copy_async(guards.data() + guard_bytes_, block + known.bytes, guard_bytes_, stream, device());
  {
    const relaxed_capture_scope relaxed;
    synchronize(stream, device());
  }
  overrun found{block, known.bytes, 0, 0, known.stream};
  for (std::size_t i = 0; i < guards.size(); ++i) {
    if (guards[i] == pattern) continue;
    if (found.wrong_bytes++ != 0) continue;
    const auto at = static_cast<std::ptrdiff_t>(i) - static_cast<std::ptrdiff_t>(guard_bytes_);
    found.offset = at < 0 ? at : at + static_cast<std::ptrdiff_t>(known.bytes);
  }
  if (found.wrong_bytes == 0) return std::nullopt;
  found.allocated_from = stack_of(block - room_before(known.alignment));
  return found;
}

/// What a tracking adaptor under this one knows of the memory that it was given.
std::string guard_resource_adaptor::stack_of(const void* base) const {
  for (auto under = upstream(); under; under = under->upstream()) {
    const auto* const tracking = dynamic_cast<const tracking_resource_adaptor*>(under.get());
    if (tracking == nullptr) continue;
    for (const outstanding_allocation& one : tracking->outstanding_allocations()) {
      if (one.pointer == base && one.stack) return one.stack->text();
    }
  }
  return {};
}

template <class... Parts>
void guard_resource_adaptor::report(const Parts&... parts) const noexcept {
  if (reports_.fetch_add(1, std::memory_order_relaxed) < most_reports) report_once(parts...);
}

}  // namespace cenote::inline v1
