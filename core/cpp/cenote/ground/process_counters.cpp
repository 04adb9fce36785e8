#include "cenote/ground/process_counters.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <utility>

#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/output_file.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr std::array<char, 8> magic = {'c', 'e', 'n', 'o', 't', 'e', 'P', 'C'};
constexpr std::uint32_t layout_version = 1;
constexpr int most_looked_at = 256;  // files of other processes

constinit std::atomic<process_counters*> of_this_process{nullptr};

struct making {
  process_mutex mutex;  // guards all below, and that there is one maker
  int descriptor = -1;  // of the file; it has the lock
  std::string path;
};

making& the_making() noexcept {
  static immortal<making> the_one;
  return *the_one;
}

class open_descriptor {
 public:
  explicit open_descriptor(int descriptor) : descriptor_(descriptor) {}
  ~open_descriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  open_descriptor(const open_descriptor&) = delete;
  open_descriptor& operator=(const open_descriptor&) = delete;

  int get() const noexcept { return descriptor_; }
  int release() noexcept { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

/// Whether the name and the content are those of a file of ours, also of one that was never finished; not of one that
/// may just be being made.
bool is_of_counters(const char* name, int file) noexcept {
  const std::size_t digits = std::strspn(name, "0123456789");
  if (digits == 0 || name[digits] != '-' || name[digits + 1] == '\0') return false;
  if (name[digits + 1 + std::strspn(name + digits + 1, "0123456789")] != '\0') return false;
  struct stat found{};
  if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) return false;
  constexpr time_t seconds_to_make_one = 5;
  if (found.st_size == 0) return time(nullptr) - found.st_mtime > seconds_to_make_one;
  std::array<char, magic.size()> begin{};
  if (found.st_size != sizeof(process_counters) || pread(file, begin.data(), begin.size(), 0) != begin.size()) {
    return false;
  }
  return begin == magic || begin == std::array<char, magic.size()>{};
}

/// Removes the files of processes that have ended.
void sweep(int folder) noexcept {
  open_descriptor listed(fcntl(folder, F_DUPFD_CLOEXEC, 0));
  DIR* const listing = fdopendir(listed.get());
  if (listing == nullptr) return;
  static_cast<void>(listed.release());  // it is the listing's
  for (int looks = 0; looks < most_looked_at; ++looks) {
    const dirent* const found = readdir(listing);
    if (found == nullptr) break;
    if (found->d_name[0] == '.') continue;
    const open_descriptor file(openat(folder, found->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file.get() < 0 || !is_of_counters(found->d_name, file.get())) continue;
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) continue;
    unlinkat(folder, found->d_name, 0);
  }
  closedir(listing);
}

std::uint64_t ns_since_1970() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

/// The folder of the files; empty where there is to be none.
std::string folder_of_this_user() {
  if (is_secure_execution()) return {};
  if (const char* const named = environment_variable("CENOTE_COUNTERS")) {
    return std::strcmp(named, "off") == 0 ? std::string() : named;
  }
  return "/dev/shm/cenote-" + std::to_string(geteuid());
}

/// Maps a new file, which is then locked; null where none can be had.
void* map_file(making& made) {
  const std::string path = folder_of_this_user();
  if (path.empty()) return nullptr;
  mkdir(path.c_str(), S_IRWXU);
  const open_descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat found{};
  if (folder.get() < 0 || fstat(folder.get(), &found) != 0) return nullptr;
  if (found.st_uid != geteuid() || (found.st_mode & (S_IWGRP | S_IWOTH)) != 0) return nullptr;  // others could cut it
  sweep(folder.get());
  std::string name = path + "/" + std::to_string(getpid()) + "-" + std::to_string(ns_since_1970());
  open_descriptor file(open_for_mapping(name));
  if (file.get() < 0) return nullptr;
  void* memory = MAP_FAILED;
  if (flock(file.get(), LOCK_EX | LOCK_NB) == 0 && posix_fallocate(file.get(), 0, sizeof(process_counters)) == 0) {
    memory = mmap(nullptr, sizeof(process_counters), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  }
  if (memory == MAP_FAILED) {
    unlink(name.c_str());
    return nullptr;
  }
  made.path = std::move(name);
  made.descriptor = file.release();
  return memory;
}

void* map_private() noexcept {
  void* const memory =
      mmap(nullptr, sizeof(process_counters), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory != MAP_FAILED ? memory : nullptr;
}

/// At the exit; in a forked child the path is empty.
void remove_file() {
  const std::lock_guard lock(the_making().mutex);
  if (!the_making().path.empty()) unlink(the_making().path.c_str());
}

[[gnu::noinline]] process_counters& make() noexcept {
  making& made = the_making();
  const std::lock_guard lock(made.mutex);
  if (process_counters* const known = of_this_process.load(std::memory_order_acquire)) return *known;
  void* memory = nullptr;
  try {
    memory = map_file(made);
  } catch (const std::bad_alloc&) {  // private memory must do
  }
  if (memory != nullptr) {
    std::atexit(remove_file);
  } else if ((memory = map_private()) == nullptr) {
    std::terminate();  // there is no page of memory: nothing could be allocated either
  }
  auto* const counters = new (memory) process_counters;
  auto& head = counters->head;
  head.version = layout_version;
  head.process = static_cast<std::uint32_t>(getpid());
  head.devices = most_counted_devices;
  head.clients = recorder::most_clients;
  head.tags = recorder::most_tags;
  head.name_bytes = recorder::longest_name + 1;
  head.started_since_1970_ns = ns_since_1970();
  recorder::copy_names(counters->names.front().data());
  head.magic.store(std::bit_cast<std::uint64_t>(magic), std::memory_order_release);
  of_this_process.store(counters, std::memory_order_release);
  return *counters;
}

/// The parent's file stays the parent's, and its lock ends with the parent.
void leave_file_to_parent() noexcept {
  making& made = the_making();
  process_counters* const of_parent = of_this_process.load(std::memory_order_relaxed);
  if (made.descriptor < 0) return;  // private memory was copied by the fork
  close(std::exchange(made.descriptor, -1));
  made.path.clear();
  void* const copy = map_private();  // null: they begin anew
  if (copy != nullptr) std::memcpy(copy, static_cast<const void*>(of_parent), sizeof(process_counters));
  of_this_process.store(static_cast<process_counters*>(copy), std::memory_order_relaxed);
  munmap(of_parent, sizeof(process_counters));
}

[[maybe_unused]] const int watch_forks_of_counters =
    (the_making(), pthread_atfork(nullptr, nullptr, leave_file_to_parent));  // made while there is one thread

}  // namespace

CENOTE_HOT process_counters& process_counters::get() noexcept {
  process_counters* const made = of_this_process.load(std::memory_order_acquire);
  return made != nullptr ? *made : make();
}

void name_counters(recorder::names kind, std::size_t number, std::string_view text) noexcept {
  const std::size_t place = number + (kind == recorder::names::tags ? recorder::most_clients : 0);
  const std::lock_guard lock(the_making().mutex);
  process_counters* const made = of_this_process.load(std::memory_order_acquire);
  if (made == nullptr || place >= made->names.size()) return;  // who makes them copies the names
  char* const to = made->names[place].data();
  const std::size_t bytes = std::min(text.size(), recorder::longest_name);
  std::memcpy(to, text.data(), bytes);
  to[bytes] = '\0';
}

}  // namespace cenote::inline v1
