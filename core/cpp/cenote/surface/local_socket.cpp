#include "cenote/surface/local_socket.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace cenote::inline v1 {
namespace {

constexpr int most_waiting = 64;

[[noreturn]] void throw_system_error(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

int make_socket() {
  const int made = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (made < 0) throw_system_error("there is no socket for sharing memory");
  return made;
}

struct abstract_address {
  sockaddr_un address{};
  socklen_t length = 0;

  explicit abstract_address(const std::string& name) {
    address.sun_family = AF_UNIX;
    const std::size_t size = std::min(name.size(), sizeof(address.sun_path) - 1);
    std::memcpy(address.sun_path + 1, name.data(), size);
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

}  // namespace

local_socket local_socket::listen(const std::string& name) {
  local_socket made(make_socket());
  const abstract_address address(name);
  if (bind(made.descriptor(), address.get(), address.length) != 0 || ::listen(made.descriptor(), most_waiting) != 0) {
    throw_system_error("there is no socket for sharing memory");
  }
  return made;
}

std::optional<local_socket> local_socket::connect(const std::string& name) {
  local_socket made(make_socket());
  const abstract_address address(name);
  if (::connect(made.descriptor(), address.get(), address.length) == 0) return made;
  if (errno == ECONNREFUSED) return std::nullopt;
  throw_system_error("another process cannot be reached");
}

std::optional<local_socket> local_socket::accept() const {
  const int accepted = accept4(descriptor(), nullptr, nullptr, SOCK_CLOEXEC);
  if (accepted < 0) return std::nullopt;
  return local_socket(accepted);
}

std::optional<uid_t> local_socket::peer_user() const {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(descriptor(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return std::nullopt;
  return peer.uid;
}

void local_socket::set_patience(std::chrono::milliseconds longest) const {
  timeval limit{};
  limit.tv_sec = longest.count() / 1000;
  limit.tv_usec = longest.count() % 1000 * 1000;
  setsockopt(descriptor(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(descriptor(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

bool local_socket::send(const void* message, std::size_t bytes, int descriptor) const {
  iovec data{const_cast<void*>(message), bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr sent{};
  sent.msg_iov = &data;
  sent.msg_iovlen = 1;
  if (descriptor >= 0) {
    sent.msg_control = control;
    sent.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&sent);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  }
  return sendmsg(this->descriptor(), &sent, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}

bool local_socket::receive(void* message, std::size_t bytes, file_descriptor* descriptor) const {
  iovec data{message, bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr received{};
  received.msg_iov = &data;
  received.msg_iovlen = 1;
  received.msg_control = control;
  received.msg_controllen = sizeof(control);
  ssize_t count = 0;
  do {
    count = recvmsg(this->descriptor(), &received, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  file_descriptor came;  // closed where nobody asked for it
  const cmsghdr* const header = count < 0 ? nullptr : CMSG_FIRSTHDR(&received);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int value = -1;
    std::memcpy(&value, CMSG_DATA(header), sizeof(int));
    came = file_descriptor(value);
  }
  if (descriptor != nullptr) *descriptor = std::move(came);
  return count == static_cast<ssize_t>(bytes);
}

void local_socket::shut_down() const noexcept { shutdown(descriptor(), SHUT_RDWR); }

}  // namespace cenote::inline v1
