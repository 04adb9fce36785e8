// A queue of work that advances only when something waits for it.
//
// 1. Work is an action and the points that it comes after. A queue_point is a place in a queue: "queue S, once
//    5 pieces of it are done". An event's record is a point; waiting for an event is work with a point and no action.
//
//        S:  [copy][memset][record e]          e = queue_point{S, 3}
//        T:  [wait for e][copy]                the wait is queued_work{after = {queue_point{S, 3}}}
//
// 2. advance(point) runs just what the point needs: its own queue up to there and, where a piece of work comes after a
//    point of another queue, that queue up to that point. Nothing else runs. Work that was not ordered is therefore not
//    done, and a program that relied on luck sees wrong bytes every time.
// 3. A host function runs outside the driver's mutex; its queue is marked running meanwhile, and whoever needs that
//    queue waits for it.
// 4. "All work so far" is asked for often: by the legacy stream at each piece of its work, and by an event over a
//    context. busy_queues therefore keeps the queues that have work to do, and, for each of the two, those that have
//    got work since it last asked; what it asked for before comes before its next piece anyway. So a program that
//    seldom waits pays for its work once, however many streams it has made.
// 5. comes_before says whether one piece of work must be done before another one may run: for the check of who touches
//    memory (access_history.hpp). It looks up the clock of the later piece: of each other queue, the furthest point
//    that comes before it. A clock is made when it is first asked for, from those of the piece before it and of the
//    points that it comes after; pieces that come after nothing new share one. So a program that nobody asks about pays
//    nothing.
//
// The points of queued work always lie in the past (they were made before it), so they form no cycle.
//
// Threads: guarded by driver_mutex(), which advance and step release while a host function runs.
// Cost: a piece of work costs its own action and O(log busy queues); the stack of advance is explicit, so that a chain
// of any length is fine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace cenote::sim {

class work_queue;

struct queue_point {
  std::shared_ptr<work_queue> queue;
  std::uint64_t count;  ///< pieces of work of that queue, since its beginning

  bool reached() const;
};

using queue_points = std::vector<queue_point>;

bool all_reached(const queue_points& points);

/// The furthest point of each queue, by the queue's id.
using vector_of_points = std::map<std::uint64_t, queue_point>;

struct queued_work {
  queue_points after;
  std::function<void()> action;
  bool is_host_function = false;
  std::shared_ptr<const vector_of_points> clock{};  ///< what comes before it in other queues; null: not asked for yet
};

/// Queues by their ids, so that they are visited in the order in which they were made.
using queue_map = std::map<std::uint64_t, std::shared_ptr<work_queue>>;

/// The queues of one context that have work to do. A queue leaves all three sets when its last piece is done.
struct busy_queues {
  queue_map all;
  queue_map new_to_legacy;  ///< blocking ones with work that no work of the legacy stream comes after yet
  queue_map new_to_marks;   ///< those with work that no mark (primary_context::mark) comes after yet
};

/// The ends of the queues: points that are reached once all their work so far is done.
queue_points ends_of(const queue_map& queues);

enum class queue_kind {
  non_blocking,
  blocking,  ///< of a stream that is ordered with the legacy stream
  legacy,
  marks  ///< its pieces have no action: one is done as soon as all that it comes after is
};

class work_queue : public std::enable_shared_from_this<work_queue> {
 public:
  /// Past this many pieces of waiting work, a new one first runs the oldest: the real queue has an end as well.
  static constexpr std::size_t capacity = 16'384;

  work_queue(queue_kind kind, std::uint64_t id, busy_queues& busy) : kind(kind), id(id), busy_(busy) {}

  /// The returned point is reached once the work is done.
  queue_point push(queued_work work);

  /// Reached once all that is in the queue now is done.
  queue_point end();

  bool idle() const { return waiting_.empty(); }
  std::size_t pending() const { return waiting_.size(); }
  bool blocking() const { return kind == queue_kind::blocking || kind == queue_kind::legacy; }

  const queue_kind kind;
  const std::uint64_t id;

 private:
  friend struct queue_point;
  friend void advance(const queue_points&);
  friend void step(const queue_points&);
  friend bool comes_before(const queue_point&, const queue_point&);
  friend void make_clocks(const queue_point&);

  const queued_work& front() const { return waiting_.front(); }
  queued_work& piece(std::uint64_t count) { return waiting_[static_cast<std::size_t>(count - done_ - 1)]; }
  bool has_clock(std::uint64_t count) const { return count <= clocked(); }
  std::uint64_t clocked() const { return clocked_ > done_ ? clocked_ : done_; }
  void make_next_clock();
  void run_front();
  void pop_front();
  void pass_marks();
  void note_new_work();

  busy_queues& busy_;
  std::deque<queued_work> waiting_;
  std::uint64_t pushed_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t clocked_ = 0;  ///< pieces up to here have clocks, or are done
  bool running_ = false;
};

/// Runs a host function, with the mutex released meanwhile.
void run_outside_the_mutex(const std::function<void()>& host_function);

/// Runs what the points need, until all of them are reached.
void advance(const queue_points& points);

/// Runs one piece of work towards the first point that is not reached; nothing where all are, or where that piece is a
/// host function that another thread is running.
void step(const queue_points& points);

/// Whether the work of `earlier` is done, or must be before that of `later` may run.
bool comes_before(const queue_point& earlier, const queue_point& later);

}  // namespace cenote::sim
