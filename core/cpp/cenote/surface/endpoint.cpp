#include "cenote/surface/endpoint.hpp"

#include <poll.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "cenote/ground/error.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr auto longest_answer = std::chrono::seconds(10);
constexpr auto out_of_descriptors_pause = std::chrono::milliseconds(10);

std::uint64_t random_number() {
  std::uint64_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) {
    throw std::system_error(errno, std::generic_category(), "the system has no random numbers");
  }
  return number;
}

struct endpoints {
  process_mutex mutex;  // guards all below
  endpoint* current = nullptr;
  pid_t process = 0;  // whose it is
};

endpoints& all_endpoints() {
  static immortal<endpoints> known;
  return *known;
}

}  // namespace

endpoint& endpoint::of_this_process() {
  endpoints& known = all_endpoints();
  const std::lock_guard lock(known.mutex);
  if (known.process != getpid()) {
    auto* const made = new endpoint;  // never destroyed: its thread uses it to the end
    std::thread([made] { made->serve(); }).detach();
    known.current = made;
    known.process = getpid();
  }
  return *known.current;
}

endpoint::endpoint()
    : name_("cenote-" + std::to_string(getpid()) + '-' + std::to_string(random_number())),
      listener_(local_socket::listen(name_)) {}

endpoint_request endpoint::add(std::shared_ptr<offer> offered) {
  const std::uint64_t key = random_number();
  const std::lock_guard lock(mutex_);
  offers_.emplace(last_number_ + 1, entry{key, std::move(offered)});
  return {++last_number_, key};
}

void endpoint::withdraw(const endpoint_request& offered) noexcept {
  std::shared_ptr<offer> withdrawn;  // ends after the lock
  const std::lock_guard lock(mutex_);
  const auto found = offers_.find(offered.number);
  if (found == offers_.end()) return;
  withdrawn = std::move(found->second.offered);
  offers_.erase(found);
}

void endpoint::answer(use& asking) const {
  endpoint_request wanted{};
  if (!asking.connection.receive(&wanted, sizeof(wanted))) return;
  std::shared_ptr<offer> offered;
  {
    const std::lock_guard lock(mutex_);
    const auto found = offers_.find(wanted.number);
    if (found != offers_.end() && found->second.key == wanted.key) offered = found->second.offered;
  }
  if (offered) asking.kept = offered->answer(asking.connection);
}

void endpoint::serve() {
  std::vector<pollfd> watched;
  while (!process_is_exiting()) {
    watched.assign(1, {listener_.descriptor(), POLLIN, 0});
    for (const use& each : uses_) watched.push_back({each.connection.descriptor(), POLLIN, 0});
    if (poll(watched.data(), watched.size(), -1) < 0) continue;
    for (std::size_t i = uses_.size(); i-- > 0;) {
      if (watched[i + 1].revents == 0) continue;
      if (uses_[i].kept == nullptr) {
        try {
          answer(uses_[i]);
        } catch (const std::exception& error) {
          report_once("memory could not be shared: ", error.what());
        }
        if (uses_[i].kept != nullptr) continue;
      }
      uses_.erase(uses_.begin() + static_cast<std::ptrdiff_t>(i));  // it has ended, or got nothing
    }
    if (watched[0].revents == 0) continue;
    if (auto asking = listener_.accept()) {
      asking->set_patience(longest_answer);
      if (asking->peer_user() == geteuid()) uses_.push_back({std::move(*asking)});
    } else {
      std::this_thread::sleep_for(out_of_descriptors_pause);
    }
  }
}

}  // namespace cenote::inline v1
