// The worker's side of the protocol: one request a line on stdin, one answer a line on stdout, both flat JSON.
//
//   {"do":"hello"}                                       → {"worker":…, "peers":{…}, "cases":{…}, "device":…, …}
//   {"do":"run","case":…,"peer":…, and its parameters}   → {"value":…, "done":…, "figures":{…}} or {"error":…}
//   {"do":"quit"}
//
// A run measures one round and makes its peer anew; the parent repeats and orders them.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "record.hpp"

namespace bench {

/// What one round gave.
struct outcome {
  double value = 0;      ///< in the unit of the case: nanoseconds an operation, unless it says otherwise
  std::size_t done = 0;  ///< operations
  std::map<std::string, double> figures = {};
};

class worker {
 public:
  explicit worker(std::string name) : name_(std::move(name)) {}

  using run = std::function<outcome(const record&)>;

  /// A peer, with its version; or that it is not there and why.
  void add_peer(const std::string& peer, const std::string& version) { versions_.set(peer, version); }
  void add_missing(const std::string& peer, const std::string& why) { missing_.set(peer, why); }

  void add(const std::string& bench_case, const std::string& peer, run runs) {
    runs_[{bench_case, peer}] = std::move(runs);
  }

  /// Answers until it is told to quit, or stdin ends. The exit status of the program.
  int serve();

 private:
  record hello() const;
  record answer(const record& request) const;

  std::string name_;
  record versions_;
  record missing_;
  std::map<std::pair<std::string, std::string>, run> runs_;
};

}  // namespace bench
