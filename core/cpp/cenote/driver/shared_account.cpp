#include "cenote/driver/shared_account.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

namespace cenote::inline v1 {

struct shared_account::layout {
  std::atomic<std::uint32_t> version;
  std::atomic<std::uint32_t> asked;
  std::array<std::atomic<std::uint64_t>, max_processes> held;
};

namespace {

constinit std::atomic<shared_account*> last_joined{nullptr};
constexpr std::uint32_t version_of_layout = 1;
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "processes share no lock of the library's");

struct flock lock_of(std::size_t place) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(place);
  lock.l_len = 1;
  return lock;
}

[[noreturn]] void refuse(int file, const std::string& why) {
  close(file);
  throw std::runtime_error("the file of a shared budget " + why);
}

std::optional<std::size_t> take_place(int file) {
  for (std::size_t place = 0; place < shared_account::max_processes; ++place) {
    struct flock lock = lock_of(place);
    if (fcntl(file, F_OFD_SETLK, &lock) == 0) return place;
  }
  return std::nullopt;
}

bool is_alive(int file, std::size_t place) noexcept {
  struct flock lock = lock_of(place);
  return fcntl(file, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace

shared_account& shared_account::join(int file) {
  if (ftruncate(file, sizeof(layout)) != 0) {
    refuse(file, "cannot be made as large as it must be: " + std::generic_category().message(errno));
  }
  void* const mapped = mmap(nullptr, sizeof(layout), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) refuse(file, "cannot be mapped: " + std::generic_category().message(errno));
  layout& found = *static_cast<layout*>(mapped);
  std::uint32_t version = 0;
  if (!found.version.compare_exchange_strong(version, version_of_layout) && version != version_of_layout) {
    munmap(mapped, sizeof(layout));
    refuse(file, "is of another version of cenote");
  }
  const auto place = take_place(file);
  if (!place) {
    munmap(mapped, sizeof(layout));
    refuse(file, "has no place for another process: " + std::to_string(max_processes) + " have it");
  }
  found.held[*place].store(0);  // of one that has ended
  auto* const made = new shared_account(found, file, *place);
  made->joined_before_ = last_joined.exchange(made);
  return *made;
}

void shared_account::add(std::size_t bytes) noexcept { mapped_.held[place_].fetch_add(bytes); }

void shared_account::subtract(std::size_t bytes) noexcept { mapped_.held[place_].fetch_sub(bytes); }

std::size_t shared_account::total() const noexcept {
  std::size_t bytes = 0;
  for (std::size_t place = 0; place < max_processes; ++place) {
    const std::uint64_t held = mapped_.held[place].load();
    if (held != 0 && (place == place_ || is_alive(file_, place))) bytes += held;
  }
  return bytes;
}

void shared_account::ask() noexcept { mapped_.asked.fetch_add(1); }

std::uint32_t shared_account::asked() const noexcept { return mapped_.asked.load(); }

void shared_account::leave() noexcept {
  mapped_.held[place_].store(0);
  struct flock lock = lock_of(place_);
  lock.l_type = F_UNLCK;
  fcntl(file_, F_OFD_SETLK, &lock);  // a thread that has just read the account may still add to the place
}

}  // namespace cenote::inline v1
