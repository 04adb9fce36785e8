// What the cases ask of a peer. The cases are templates over it, so that no virtual call falls on anyone.
//
// A peer P has
//   P::on_device            whether it allocates memory of the device
//   P::forgets              whether it can be destroyed with blocks in use, and frees them
//   P::own_stream           a stream as the peer's library makes one, with handle()
//   allocate(stream, bytes), deallocate(stream, pointer, bytes)
//   counters()              events and waits so far, by name; empty where it does not count
//   trim()                  gives unused memory back; false if it cannot
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "device.hpp"

namespace bench {

/// How much memory a peer is made with, bytes.
struct room {
  std::size_t initial;
  std::optional<std::size_t> maximum = std::nullopt;
};

/// Each run makes its peer anew.
template <class Peer>
using maker = std::function<std::unique_ptr<Peer>(room)>;

using counts = std::map<std::string, double>;

/// What `peer` has counted, and the driver calls where they can be counted.
template <class Peer>
counts counts_of(const Peer& peer) {
  counts result = peer.counters();
  if constexpr (Peer::on_device)
    if (const auto calls = calls_so_far()) result["driver calls"] = *calls;
  return result;
}

/// What was counted since `before`, for each of `operations`.
template <class Peer>
counts counts_each(const Peer& peer, const counts& before, std::size_t operations) {
  counts result = counts_of(peer);
  for (auto& [name, value] : result) value = (value - before.at(name)) / static_cast<double>(operations);
  return result;
}

/// The stream that a case asks for: "legacy", "own" or "foreign".
template <class Peer>
class chosen_stream {
 public:
  explicit chosen_stream(const std::string& kind) {
    if (kind == "own") own_.emplace();
    if (kind == "foreign") foreign_.emplace();
    handle_ = own_ ? own_->handle() : foreign_ ? foreign_->handle() : nullptr;
  }
  CUstream handle() const noexcept { return handle_; }

 private:
  std::optional<typename Peer::own_stream> own_;
  std::optional<foreign_stream> foreign_;
  CUstream handle_ = nullptr;
};

}  // namespace bench
