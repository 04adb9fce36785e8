#include "cenote/adaptors/statistics_resource_adaptor.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>

#include "cenote/ground/free_correction.hpp"

namespace cenote::inline v1 {
namespace {

/// No block has more, whatever size its free may say.
constexpr auto largest_block = static_cast<std::size_t>(-leased_quota::least_in_use);

counter counter_of(const leased_quota::figures& seen) noexcept { return {seen.taken, seen.limit, seen.taken_in_all}; }

/// The last of them that is open and of these books; end() if none is.
counting_scopes::const_reverse_iterator find_last(const counting_scopes& scopes, const scope_books& books) {
  return std::find_if(scopes.rbegin(), scopes.rend(), [&](const auto& scope) { return scope->is_open_in(books); });
}

}  // namespace

allocation_counters statistics_resource_adaptor::counters() const {
  if (has_scopes()) {
    for (const counting_scopes* scopes : {scopes_of_running_task(), scopes_of_thread()}) {
      if (scopes == nullptr) continue;
      if (const auto last = find_last(*scopes, *books_); last != scopes->rend()) return (*last)->counters();
    }
  }
  return {counter_of(bytes_.look()), counter_of(count_.look())};
}

allocation_counters statistics_resource_adaptor::push_counters() {
  const allocation_counters top = counters();
  make_scopes_of_thread().push_back(open_scope());
  return top;
}

allocation_counters statistics_resource_adaptor::pop_counters() {
  counting_scopes& scopes = make_scopes_of_thread();
  const auto last = find_last(scopes, *books_);
  if (last == scopes.rend()) throw std::out_of_range("cannot pop the last counter pair: this thread has pushed none");
  const allocation_counters counted = (*last)->close();
  scopes.erase(std::next(last).base());
  return counted;
}

/// Calls `count` for each scope that the calling thread, or the task that runs on it, is in.
void statistics_resource_adaptor::count_in_scopes(void (allocation_counters::*count)(std::size_t) noexcept,
                                                  std::size_t bytes) noexcept {
  const counting_scopes* const of_task = scopes_of_running_task();  // which may take an interpreter's lock
  const std::lock_guard lock(books_->mutex);
  for (const counting_scopes* scopes : {scopes_of_thread(), of_task}) {
    if (scopes == nullptr) continue;
    for (const auto& scope : *scopes) {
      if (scope->is_open_in(*books_)) scope->count_locked(count, bytes);
    }
  }
}

inline void* statistics_resource_adaptor::counted(void* pointer, std::size_t bytes) noexcept {
  if (pointer == nullptr) return nullptr;
  bytes_.take(static_cast<std::int64_t>(bytes));
  count_.take(1);
  if (has_scopes()) [[unlikely]]  // its own this thread has seen
    count_in_scopes(&allocation_counters::allocated, bytes);
  return pointer;
}

void* statistics_resource_adaptor::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return counted(pass_on(stream, bytes, alignment), bytes);
}

void* statistics_resource_adaptor::do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  return counted(next().allocate_at_once(stream, bytes, alignment), bytes);
}

void statistics_resource_adaptor::do_deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                                                std::size_t alignment) {
  // Before the memory can be another thread's: it is never counted twice in a peak.
  const std::size_t said = std::min(bytes, largest_block);
  bytes_.give(static_cast<std::int64_t>(said));
  count_.give(1);
  if (has_scopes()) [[unlikely]]
    count_in_scopes(&allocation_counters::freed, said);
  pass_on(stream, pointer, bytes, alignment);
  if (const auto freed = free_correction::of(pointer)) [[unlikely]]
    correct(said, *freed);
}

/// After a free that said a wrong size, or that freed nothing: `freed` is 0 then.
void statistics_resource_adaptor::correct(std::size_t said, std::size_t freed) noexcept {
  bytes_.give(static_cast<std::int64_t>(freed) - static_cast<std::int64_t>(said));
  if (freed == 0) count_.give(-1);
  if (!has_scopes()) return;
  count_in_scopes(&allocation_counters::not_freed, said);
  if (freed != 0) count_in_scopes(&allocation_counters::freed, freed);
}

}  // namespace cenote::inline v1
