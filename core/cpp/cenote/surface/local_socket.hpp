// A socket between processes of this machine, for messages and for file descriptors that go with them.
//
// Its name is in the abstract namespace: no file is left behind, however a process ends. Names are seen by all
// processes of the network namespace, whosever they are, so that either side asks who the other one is (peer_user).
//
// Threads: one at a time, but for shut_down.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {

class local_socket {
 public:
  /// Throws std::system_error.
  static local_socket listen(const std::string& name);

  /// None where nobody listens by that name. Throws std::system_error for anything else.
  static std::optional<local_socket> connect(const std::string& name);

  /// None where nobody is waiting any more.
  std::optional<local_socket> accept() const;

  /// Who listens, or has connected; none where that cannot be told.
  std::optional<uid_t> peer_user() const;

  /// No call waits longer than this for the other side.
  void set_patience(std::chrono::milliseconds longest) const;

  /// One message; false where the other side is gone, or has no patience.
  bool send(const void* message, std::size_t bytes, int descriptor = -1) const;

  /// A message of just so many bytes, and the descriptor that came with it, if any; false where there is none.
  bool receive(void* message, std::size_t bytes, file_descriptor* descriptor = nullptr) const;

  /// The other side sees the end, also where a forked child has this socket too.
  void shut_down() const noexcept;

  int descriptor() const noexcept { return socket_.value(); }

 private:
  explicit local_socket(int socket) noexcept : socket_(socket) {}

  file_descriptor socket_;
};

}  // namespace cenote::inline v1
