// The endpoint of this process: where other processes of the same user ask for what it offers.
//
//     offer ──► table ◄── a thread: one for the process, from the first offer on
//                            ▲ request: which offer, and its key
//     another process ───────┘   answer: what the offer sends; the connection stays while the other one uses it
//
// How it works
//   1. An offer has a number and a key, which only those know that were told: the handle carries both.
//   2. The thread accepts connections of the same user alone, and lets the offer answer. What the answer returns is
//      kept until the connection ends: when the other process closes it, or ends in whatever way.
//   3. One connection is one use. The thread looks at all of them at once (poll), so that one that is quiet holds up
//      nobody; one that does not take its answer within the patience is closed.
//   4. A forked child has no endpoint until it offers something itself. It has copies of its parent's connections: they
//      end when it does, unless the parent closes them.
//
// Threads: any. The mutex guards the table alone; offers answer without it.
// Cost: a descriptor for the process and one for each use.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cenote/ground/mutex.hpp"
#include "cenote/surface/local_socket.hpp"

namespace cenote::inline v1 {

class offer {
 public:
  offer() = default;
  virtual ~offer() = default;
  offer(const offer&) = delete;
  offer& operator=(const offer&) = delete;

  /// Sends what the other side is to have. Returns what is to live while that one uses it; null where it got nothing.
  /// Called by the endpoint's thread.
  virtual std::shared_ptr<void> answer(const local_socket& asking) = 0;
};

/// What one says to an endpoint.
struct endpoint_request {
  std::uint64_t number;
  std::uint64_t key;
};

class endpoint {
 public:
  /// Made at first use, in each process. Throws std::system_error.
  static endpoint& of_this_process();

  /// By which others connect.
  const std::string& name() const noexcept { return name_; }

  /// The offer is there until it is withdrawn.
  endpoint_request add(std::shared_ptr<offer> offered);

  /// Those that use it go on.
  void withdraw(const endpoint_request& offered) noexcept;

 private:
  struct use {
    local_socket connection;
    std::shared_ptr<void> kept{};  // null: it has not asked yet
  };

  endpoint();
  void serve();
  void answer(use& asking) const;

  std::string name_;
  local_socket listener_;
  std::vector<use> uses_{};       // the thread's own
  mutable object_mutex mutex_{};  // guards all below
  std::uint64_t last_number_ = 0;
  struct entry {
    std::uint64_t key;
    std::shared_ptr<offer> offered;
  };
  std::map<std::uint64_t, entry> offers_{};
};

}  // namespace cenote::inline v1
