#include "cenote/structures/leased_quota.hpp"

#include <algorithm>
#include <mutex>
#include <new>
#include <stdexcept>

#include "cenote/ground/thread_slot.hpp"

namespace cenote::inline v1 {
namespace {

/// Of what is left once a thread has what it wants: of the rest, which all will want from, and of another thread's.
constexpr std::int64_t share_of_rest = 8;
constexpr std::int64_t share_of_another = 2;

/// What to take of `available` for one who wants `wanted`: that, and a share of what is left.
std::int64_t portion(std::int64_t available, std::int64_t wanted, std::int64_t share) noexcept {
  return wanted >= available ? available : wanted + (available - wanted) / share;
}

}  // namespace

constinit thread_local std::size_t leased_quota::seat_ = 0;

/// By the thread's slot. A thread that ends gives its seat up before it does its slot.
std::size_t leased_quota::take_seat() noexcept {
  const std::size_t slot = this_thread_slot();
  if (slot >= seats) return no_seat;
  struct end_of_thread {
    ~end_of_thread() { seat_ = no_seat; }  // other destructors of the thread may free memory after this one
  };
  thread_local const end_of_thread end;
  return 1 + slot;
}

leased_quota::leased_quota(limit kind, std::int64_t least) noexcept
    : kind_(kind), has_free_fence_(kind == limit::fixed && has_asymmetric_fence()), limit_(least), rest_(least) {
  cells_[0] = &common_;
}

leased_quota::~leased_quota() {
  for (std::size_t seat = 1; seat <= seats; ++seat) delete cells_[seat].load(std::memory_order_relaxed);
}

/// Taken and not given: as it was at one time, or more than that if the cell's thread gives faster than it can be read.
std::int64_t leased_quota::cell::in_use() const noexcept {
  constexpr int looks = 8;
  std::uint64_t before = given.load(std::memory_order_acquire);
  for (int look = 0;; ++look) {
    const std::uint64_t sum = taken.load(std::memory_order_acquire);
    const std::uint64_t after = given.load(std::memory_order_relaxed);
    if (after == before || look == looks) return static_cast<std::int64_t>(sum - before);
    before = given.load(std::memory_order_acquire);
  }
}

leased_quota::cell& leased_quota::own_or_common_cell() noexcept {
  if (seat_ == 0) seat_ = take_seat();
  if (!is_seat(seat_)) return common_;
  if (cell* const own = own_cell()) return *own;
  cell* const made = new (std::nothrow) cell;
  if (made == nullptr) return common_;
  const std::lock_guard lock(lock_);
  cells_[seat_].store(made, std::memory_order_release);
  end_.store(std::max(end_.load(std::memory_order_relaxed), seat_ + 1), std::memory_order_release);
  return *made;
}

/// The other side of pass_fence(), for the threads of all cells.
void leased_quota::pass_fence_of_all() noexcept {
  if (has_free_fence_) return cenote::pass_fence_of_all();
  for_each_cell([](cell& each) { each.gate.exchange(true, std::memory_order_acq_rel); });
}

std::int64_t leased_quota::left_to_others_locked(const cell& than) const noexcept {
  std::int64_t left = 0;
  for_each_cell([&](const cell& other) {
    if (&other != &than) left += std::max<std::int64_t>(other.left(), 0);
  });
  return left;
}

/// Makes the grants of others smaller, by `wanted` and a share more where so much is left; by how much.
std::int64_t leased_quota::call_back_locked(const cell& from_others_than, std::int64_t wanted) noexcept {
  const std::size_t end = end_.load(std::memory_order_relaxed);
  std::array<std::int64_t, 1 + seats> called;
  std::int64_t sum = 0;
  std::size_t looked_at = 0;
  const std::size_t first = next_called_;
  const auto at = [&](std::size_t place) { return (first + place) % end; };
  for (; looked_at < end && sum < wanted; ++looked_at) {
    called[looked_at] = 0;
    next_called_ = at(looked_at);
    cell* const other = cells_[next_called_].load(std::memory_order_acquire);
    if (other == nullptr || other == &from_others_than) continue;
    const std::int64_t left = other->left();
    if (left <= 0) continue;
    called[looked_at] = portion(left, wanted - sum, share_of_another);
    other->add_to_grant(-called[looked_at]);
    sum += called[looked_at];
  }
  if (sum == 0 || kind_ == limit::rising) return sum;
  pass_fence_of_all();
  for (std::size_t i = 0; i < looked_at; ++i) {
    if (called[i] == 0) continue;
    cell& other = *cells_[at(i)].load(std::memory_order_acquire);
    const std::int64_t kept = std::clamp<std::int64_t>(-other.left(), 0, called[i]);  // what its thread took meanwhile
    other.add_to_grant(kept);
    sum -= kept;
  }
  return sum;
}

/// Grants `to` what it lacks for taking `amount`, and a share more; what it still lacks then.
std::int64_t leased_quota::grant_locked(cell& to, std::int64_t amount) noexcept {
  std::int64_t lacking = amount - to.left();
  if (lacking <= 0) return 0;
  const std::int64_t lent = portion(rest_, lacking, share_of_rest);
  rest_ -= lent;
  to.add_to_grant(lent);
  lacking -= lent;
  while (lacking > 0 && (kind_ == limit::rising || left_to_others_locked(to) >= lacking)) {
    const std::int64_t called = call_back_locked(to, lacking);
    if (called == 0) break;
    to.add_to_grant(called);
    lacking -= called;
  }
  return std::max<std::int64_t>(lacking, 0);
}

/// Grants `to` what it lacks for taking `amount`, if need be of a limit that is raised.
void leased_quota::raise_for_locked(cell& to, std::int64_t amount) noexcept {
  const std::int64_t lacking = grant_locked(to, amount);
  if (lacking == 0) return;
  limit_ += lacking;
  to.add_to_grant(lacking);
}

bool leased_quota::try_take_slowly(std::int64_t amount) noexcept {
  cell& own = own_or_common_cell();
  const std::lock_guard lock(lock_);
  if (grant_locked(own, amount) > 0) return false;
  own.take(amount);
  return true;
}

void leased_quota::take_slowly(std::int64_t amount) noexcept {
  cell& own = own_or_common_cell();
  const std::lock_guard lock(lock_);
  raise_for_locked(own, amount);
  own.take(amount);
}

void leased_quota::give_slowly(std::int64_t amount) noexcept {
  cell& own = own_or_common_cell();
  const std::lock_guard lock(lock_);
  own.give(amount);
}

std::int64_t leased_quota::taken() const noexcept {
  // All that was given is read before what was taken: what goes from one thread to another is not missed.
  std::uint64_t given = 0, taken = 0;
  for_each_cell([&](const cell& each) { given += each.given.load(std::memory_order_acquire); });
  for_each_cell([&](const cell& each) { taken += each.taken.load(std::memory_order_acquire); });
  return static_cast<std::int64_t>(taken - given);
}

leased_quota::figures leased_quota::look() noexcept {
  const std::lock_guard lock(lock_);
  for_each_cell([&](cell& each) { raise_for_locked(each, 0); });
  std::uint64_t taken_in_all = 0;
  for_each_cell([&](const cell& each) { taken_in_all += each.taken.load(std::memory_order_relaxed); });
  return {std::min(taken(), limit_), limit_, static_cast<std::int64_t>(taken_in_all)};
}

void leased_quota::check() const {
  const std::lock_guard lock(lock_);
  std::int64_t sum = rest_;
  bool is_within = true;
  for_each_cell([&](const cell& each) {
    sum += each.granted.load(std::memory_order_relaxed);
    is_within = is_within && each.in_use() <= each.granted.load(std::memory_order_relaxed);
  });
  if (sum != limit_) throw std::logic_error("leased_quota I1: the grants and the rest do not make the limit");
  if (rest_ < 0) throw std::logic_error("leased_quota I2: the rest is negative");
  if (!is_within) throw std::logic_error("leased_quota I3: a cell has taken more than it was granted");
}

}  // namespace cenote::inline v1
