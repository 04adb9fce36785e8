#include "cenote/resources/pool_memory_resource.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "cenote/driver/device.hpp"
#include "cenote/driver/device_budget.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/pool/chunk_backing.hpp"
#include "cenote/pool/engine.hpp"
#include "cenote/pool/idle_trimmer.hpp"
#include "cenote/pool/page_backing.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"

namespace cenote::inline v1 {
namespace {

void check_pool_size(const char* which, std::optional<std::size_t> bytes) {
  if (bytes && *bytes % block_granularity != 0) {
    throw std::logic_error(std::string(which) + " pool size must be a multiple of " +
                           std::to_string(block_granularity) + " bytes, not " + std::to_string(*bytes));
  }
}

std::size_t half_of_free_memory(int device) { return align_down(free_within_budget(device) / 2, block_granularity); }

/// Pages where the upstream is virtual memory that the device has, else chunks.
std::unique_ptr<pool::backing> make_backing(pool::shared_heap& heap, std::shared_ptr<memory_resource> upstream,
                                            std::optional<std::size_t> maximum, bool is_sparing) {
  const auto* const pages = dynamic_cast<const virtual_memory_resource*>(upstream.get());
  if (pages == nullptr || !pages->has_pages()) {
    return std::make_unique<pool::chunk_backing>(heap, std::move(upstream), maximum);
  }
  const auto& settings = pages->settings();
  const page_properties properties{heap.device(), pages->handles(), settings.for_rdma};
  return std::make_unique<pool::page_backing>(heap, std::move(upstream), maximum, properties, settings.peers,
                                              is_sparing);
}

pool::page_backing& require_pages(pool::backing& memory) {
  if (auto* const pages = dynamic_cast<pool::page_backing*>(&memory)) return *pages;
  throw std::logic_error("only a pool over virtual memory can be paused: take 'pool | virtual'");
}

}  // namespace

pool_memory_resource::pool_memory_resource(std::shared_ptr<memory_resource> upstream,
                                           std::optional<std::size_t> initial, std::optional<std::size_t> maximum,
                                           pool_spare spare)
    : memory_resource(upstream, "pool"), initial_(initial), spare_(spare) {
  check_pool_size("initial", initial);
  check_pool_size("maximum", maximum);
  const bool is_virtual = dynamic_cast<const virtual_memory_resource*>(upstream.get()) != nullptr;
  if (!is_virtual && (spare.is_tight || spare.idle)) {
    throw std::logic_error(
        "only a pool over virtual memory can be tight, or give back what is idle: take 'pool | virtual'");
  }
  if (spare.idle && spare.idle->count() <= 0) throw std::logic_error("a pool's idle time must be above 0");
  if (!initial && (is_virtual || upstream->is_host_accessible())) {
    initial = 0;  // pages are there as soon as they are needed; half a device's worth of the host's memory is too much
  }
  std::size_t first = initial ? *initial : half_of_free_memory(device());
  if (!initial && maximum) first = std::min(first, *maximum);
  if (maximum && first > *maximum) {
    throw std::logic_error("Initial pool size exceeds the maximum pool size! (" + format_bytes(first) + " > " +
                           format_bytes(*maximum) + ")");
  }
  engine_ = std::make_unique<pool::engine>(device(), [&](pool::shared_heap& heap) {
    return make_backing(heap, std::move(upstream), maximum, spare.is_tight);
  });
  engine_->memory().begin(first);
  if (!spare.idle) return;
  idle_trimmer_ = std::make_unique<pool::idle_trimmer>(
      *spare.idle, pool::idle_trimmer::pool_calls{
                       [this] { return pool::shared_heap::section(engine_->heap())->most_in_use_since(); },
                       [this] { return pool_size(); }, [this](std::size_t keep) { trim_idle(keep); },
                       [this] { engine_->finish_trim(); }});
}

/// For the thread of the idle time.
void pool_memory_resource::trim_idle(std::size_t keep_bytes) noexcept {
  try {
    engine_->trim(keep_bytes, false);
  } catch (const std::exception& error) {
    report_once("what was idle in a pool could not be given back: ", error.what());
  }
}

pool_memory_resource::~pool_memory_resource() {
  if (idle_trimmer_ && !idle_trimmer_->is_of_this_process()) static_cast<void>(idle_trimmer_.release());
  idle_trimmer_.reset();
  if (is_gone()) return;
  engine_->heap().look([](const pool::stream_ordered_heap& heap) {
    if (const std::size_t in_use = heap.blocks_in_use(); in_use != 0) {
      report_once("a pool is destroyed with blocks still in use: ", in_use, ", together ",
                  format_bytes(heap.bytes_in_use()));
    }
    if (!heap.pins().is_empty()) {
      report_once("a pool is destroyed, and its memory given back, while blocks are pinned: ",
                  heap.pins().list().size());
    }
  });
  try {
    engine_->memory().end();
  } catch (const std::exception& error) {
    report_once("the memory of a pool is leaked, as its work could not be waited for: ", error.what());
  }
}

CENOTE_HOT void* pool_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return engine_->allocate(stream, bytes, alignment);
}

CENOTE_HOT void pool_memory_resource::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t) {
  engine_->deallocate(stream, pointer, bytes);
}

CENOTE_HOT void* pool_memory_resource::do_allocate_at_once(stream_ref stream, std::size_t bytes,
                                                           std::size_t alignment) {
  return engine_->allocate_at_once(stream, bytes, alignment);
}

CENOTE_HOT bool pool_memory_resource::do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes,
                                                            std::size_t) {
  return engine_->deallocate_at_once(stream, pointer, bytes);
}

std::size_t pool_memory_resource::trim(std::size_t keep_bytes, bool wait) { return engine_->trim(keep_bytes, wait); }

std::size_t pool_memory_resource::pool_size() const { return engine_->memory().held(); }

pool_counters pool_memory_resource::counters() const {
  return engine_->heap().look([](const pool::stream_ordered_heap& heap) { return heap.counters(); });
}

void pool_memory_resource::grow_in_steps_of(std::size_t bytes) {
  check_pool_size("step of the", bytes);
  if (bytes > max_block_bytes) throw std::logic_error("a pool cannot grow by 1 TiB or more at once");
  if (auto* const chunks = dynamic_cast<pool::chunk_backing*>(&engine_->memory())) chunks->grow_in_steps_of(bytes);
}

std::size_t pool_memory_resource::pause(const std::string& keep) {
  return require_pages(engine_->memory()).pause(keep);
}

std::size_t pool_memory_resource::resume() { return require_pages(engine_->memory()).resume(); }

bool pool_memory_resource::read_paused(void* to, const void* from, std::size_t bytes) {
  auto* const pages = dynamic_cast<pool::page_backing*>(&engine_->memory());
  return pages != nullptr && pages->read_paused(to, from, bytes);
}

void pool_memory_resource::expect_pauses() { require_pages(engine_->memory()).expect_pauses(); }

bool pool_memory_resource::can_be_paused() const noexcept {
  return dynamic_cast<const pool::page_backing*>(&engine_->memory()) != nullptr;
}

bool pool_memory_resource::is_paused() const noexcept {
  const auto* const pages = dynamic_cast<const pool::page_backing*>(&engine_->memory());
  return pages != nullptr && pages->pausing().is_paused();
}

std::size_t pool_memory_resource::paused_bytes() const noexcept {
  const auto* const pages = dynamic_cast<const pool::page_backing*>(&engine_->memory());
  return pages != nullptr ? pages->pausing().bytes() : 0;
}

std::string pool_memory_resource::map() const {
  std::string text;
  engine_->heap().look([&](const pool::stream_ordered_heap& heap) {
    heap.for_each_block([&](const block& b) {
      const char* const what = heap.is_unmapped(b) ? " without pages\n"
                               : b.is_free         ? " free\n"
                               : b.is_cached       ? " free, set aside\n"
                                                   : " in use\n";
      text += format_address(b.address) + ' ' + std::to_string(b.bytes()) + what;
    });
  });
  return text;
}

void pool_memory_resource::pin(const void* pointer, pin_kind kind) {
  pool::shared_heap::section(engine_->heap())->pin(pointer, kind);
  recorder::note(recorder::event::hold, device(), pointer, 1, {});
}

void pool_memory_resource::unpin(const void* pointer, pin_kind kind) {
  pool::shared_heap::section(engine_->heap())->unpin(pointer, kind);
  recorder::note(recorder::event::hold, device(), pointer, 0, {});
}

std::vector<pool_pin> pool_memory_resource::pins() const {
  return engine_->heap().look([](const pool::stream_ordered_heap& heap) { return heap.pins().list(); });
}

std::string pool_memory_resource::specification() const {
  const auto spell = [](const char* name, std::optional<std::size_t> bytes) {
    return bytes ? name + spell_bytes(*bytes) : std::string{};
  };
  return spell_specification(kind(), {spell("initial=", initial_), spell("max=", engine_->memory().maximum()),
                                      spare_.is_tight ? "tight=true" : "",
                                      spare_.idle ? "idle=" + std::to_string(spare_.idle->count()) + "ms" : ""});
}

std::shared_ptr<memory_resource> pool_memory_resource::upstream() const { return engine_->memory().upstream(); }

memory_state pool_memory_resource::state() const {
  const memory_state under = upstream()->state();
  memory_state figures = own_state();
  figures.device_free = under.device_free;
  figures.device_total = under.device_total;
  return figures;
}

memory_state pool_memory_resource::own_state() const {
  memory_state figures;
  figures.held = pool_size();
  figures.limit = engine_->memory().maximum();
  engine_->heap().look([&](const pool::stream_ordered_heap& heap) {
    figures.in_use = heap.bytes_in_use();
    figures.largest_free = heap.largest_free();
  });
  return figures;
}

void pool_memory_resource::check() const {
  {
    const std::lock_guard no_plan_is_open(engine_->memory().growth());  // whose run is neither free nor mapped
    engine_->memory().check();
  }
  upstream()->check();
}

}  // namespace cenote::inline v1
