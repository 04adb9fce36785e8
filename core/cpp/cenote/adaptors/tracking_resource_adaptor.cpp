#include "cenote/adaptors/tracking_resource_adaptor.hpp"

#include <algorithm>
#include <map>

#include "cenote/ground/free_correction.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

/// Of bad frees, for one adaptor: a program that frees wrongly does it often.
constexpr int max_reports = 100;

/// "2 allocations, 1.50 KiB (1536 bytes)"
std::string amount(std::size_t allocations, std::size_t bytes) {
  return std::to_string(allocations) + (allocations == 1 ? " allocation, " : " allocations, ") + format_bytes(bytes) +
         " (" + std::to_string(bytes) + " bytes)";
}

struct call_site {
  const call_stack* stack;
  std::size_t allocations = 0;
  std::size_t bytes = 0;
};

/// The most bytes first.
std::vector<call_site> by_call_site(const std::vector<outstanding_allocation>& allocations) {
  const auto before = [](const call_stack* a, const call_stack* b) { return *a < *b; };
  std::map<const call_stack*, call_site, decltype(before)> found(before);
  for (const outstanding_allocation& one : allocations) {
    call_site& site = found.try_emplace(one.stack.get(), call_site{one.stack.get()}).first->second;
    ++site.allocations;
    site.bytes += one.bytes;
  }
  std::vector<call_site> sites;
  for (const auto& [stack, site] : found) sites.push_back(site);
  std::sort(sites.begin(), sites.end(), [](const call_site& a, const call_site& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : *a.stack < *b.stack;
  });
  return sites;
}

}  // namespace

tracking_resource_adaptor::tracking_resource_adaptor(std::shared_ptr<memory_resource> upstream, bool capture_stacks,
                                                     interpreter running)
    : resource_adaptor(std::move(upstream), "tracking"),
      capture_stacks_(capture_stacks),
      running_(std::move(running)) {}

tracking_resource_adaptor::~tracking_resource_adaptor() {
  if (is_gone()) return;
  try {
    if (!outstanding_.empty()) report_once("the tracking adaptor ends; ", leak_report());
  } catch (const std::exception&) {
    report_once("the tracking adaptor ends with outstanding allocations");
  }
}

std::string tracking_resource_adaptor::specification() const {
  return spell_specification(kind(), {capture_stacks_ ? "capture_stacks=true" : ""});
}

std::size_t tracking_resource_adaptor::allocated_bytes() const {
  const std::lock_guard lock(mutex_);
  return allocated_bytes_;
}

std::vector<outstanding_allocation> tracking_resource_adaptor::outstanding_allocations() const {
  std::vector<outstanding_allocation> all;
  {
    const std::lock_guard lock(mutex_);
    all.reserve(outstanding_.size());
    for (const auto& [pointer, allocation] : outstanding_) all.push_back(allocation);
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  return all;
}

std::string tracking_resource_adaptor::outstanding_allocations_str() const {
  std::string text;
  for (const outstanding_allocation& one : outstanding_allocations()) {
    text += format_address(one.pointer) + ": " + std::to_string(one.bytes) + " B, stream " +
            format_address(one.stream.value()) + ", thread " + std::to_string(one.thread) + "\n";
    if (one.stack) text += one.stack->text();
  }
  return text;
}

std::string tracking_resource_adaptor::leak_report() const {
  const auto all = outstanding_allocations();
  if (all.empty()) return {};
  std::size_t bytes = 0;
  for (const outstanding_allocation& one : all) bytes += one.bytes;
  std::string text = "not freed: " + amount(all.size(), bytes) + "\n";
  if (!capture_stacks_) return text + "  to learn where they come from, capture stacks\n";
  for (const call_site& site : by_call_site(all)) {
    text += '\n';
    text += amount(site.allocations, site.bytes) + " from\n" + site.stack->text();
  }
  return text;
}

void tracking_resource_adaptor::insert(outstanding_allocation allocation) {
  const std::lock_guard lock(mutex_);
  allocation.number = allocations_++;
  const auto [known, is_new] = outstanding_.try_emplace(allocation.pointer);
  // Outstanding already: it was freed past this adaptor.
  if (!is_new) allocated_bytes_ -= known->second.bytes;
  allocated_bytes_ += allocation.bytes;
  known->second = std::move(allocation);
}

void tracking_resource_adaptor::report_bad_free(const void* pointer, std::size_t bytes,
                                                const std::optional<outstanding_allocation>& known) noexcept {
  if (reports_.fetch_add(1, std::memory_order_relaxed) >= max_reports) return;
  if (!known) {
    return report_once("the tracking adaptor: ", pointer, " (", bytes,
                       " bytes) was freed, but it is not outstanding: freed twice, or allocated elsewhere");
  }
  std::string stack;
  try {
    if (known->stack) stack = "; it was allocated from\n" + known->stack->text();
  } catch (const std::bad_alloc&) {  // of the host's memory: the report goes without
  }
  report_once("the tracking adaptor: ", pointer, " was allocated with ", known->bytes, " bytes and freed with ", bytes,
              "; ", known->bytes, " are freed", stack);
}

void* tracking_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  std::shared_ptr<const call_stack> stack;
  if (capture_stacks_) stack = std::make_shared<const call_stack>(call_stack::capture(running_));
  void* const pointer = pass_on(stream, bytes, alignment);
  if (pointer == nullptr) return nullptr;
  try {
    insert({pointer, bytes, stream, thread_id(), 0, std::move(stack)});
  } catch (...) {
    next().deallocate(stream, pointer, bytes, alignment);
    throw;
  }
  return pointer;
}

void tracking_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                              std::size_t alignment) {
  std::optional<outstanding_allocation> freed;
  {
    // Before the memory can be another thread's.
    const std::lock_guard lock(mutex_);
    if (const auto known = outstanding_.find(pointer); known != outstanding_.end()) {
      freed = std::move(known->second);
      outstanding_.erase(known);
      allocated_bytes_ -= freed->bytes;
    }
  }
  next().deallocate(stream, pointer, freed ? freed->bytes : bytes, alignment);
  if (freed && freed->bytes == bytes) return;
  report_bad_free(pointer, bytes, freed);
  if (freed) free_correction::say(pointer, freed->bytes);
}

}  // namespace cenote::inline v1
