#include "sim/stream/shared_event.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "sim/device/work.hpp"
#include "sim/ground/driver_mutex.hpp"
#include "sim/ground/failure.hpp"
#include "sim/ground/key.hpp"
#include "sim/stream/event.hpp"

namespace cenote::sim {

struct shared_event_page {
  std::uint64_t key;  ///< says that it is the page of the handle
  std::atomic<std::uint64_t> recorded, wanted, reached;
};

namespace {

constexpr std::size_t event_page_bytes = 4096;
constexpr auto event_pause = std::chrono::milliseconds(1);
constexpr char event_magic[16] = "cenote_sim 1";

struct event_handle {
  char magic[16];
  std::int32_t process;
  std::int32_t file;
  std::uint64_t key;
};
static_assert(sizeof(event_handle) <= sizeof(CUipcEventHandle));

void raise_to(std::atomic<std::uint64_t>& number, std::uint64_t at_least) {
  std::uint64_t seen = number.load();
  while (seen < at_least && !number.compare_exchange_weak(seen, at_least)) {
  }
}

/// Those that this process has shared.
std::vector<std::weak_ptr<simulated_event>>& events_out() {
  static auto* const events = new std::vector<std::weak_ptr<simulated_event>>;
  return *events;
}

void serve(const simulated_event& event) {
  shared_event_page& page = **event.page;
  const std::uint64_t recorded = page.recorded.load();
  const auto record = event.record;
  if (page.reached.load() >= recorded || !record) {
    return;
  }
  if (page.wanted.load() > page.reached.load()) {
    advance(record->points);
  }
  if (all_reached(record->points)) {
    raise_to(page.reached, recorded);
  }
}

void serve_for_ever() {
  for (;;) {
    std::this_thread::sleep_for(event_pause);
    const std::lock_guard lock(driver_mutex());
    std::vector<std::shared_ptr<simulated_event>> alive;
    for (auto at = events_out().begin(); at != events_out().end();) {
      if (auto event = at->lock()) {
        alive.push_back(std::move(event));
        ++at;
      } else {
        at = events_out().erase(at);
      }
    }
    for (const auto& event : alive) {
      serve(*event);
    }
  }
}

void* map_page(int file) {
  void* const page = mmap(nullptr, event_page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return page == MAP_FAILED ? nullptr : page;
}

}  // namespace

event_page::event_page(int file, int owner)
    : file_(file), owner_(owner), page_(static_cast<shared_event_page*>(map_page(file))) {}

std::shared_ptr<event_page> event_page::make() {
  const int file = memfd_create("cenote_sim event", MFD_CLOEXEC);
  require(file >= 0, CUDA_ERROR_OUT_OF_MEMORY);
  const bool is_large = ftruncate(file, event_page_bytes) == 0;
  std::shared_ptr<event_page> made(new event_page(file, -1));
  require(is_large && made->page_ != nullptr, CUDA_ERROR_OUT_OF_MEMORY);
  made->page_->key = new_key();
  return made;
}

std::shared_ptr<event_page> event_page::open(const CUipcEventHandle& handle) {
  event_handle from{};
  std::memcpy(&from, handle.reserved, sizeof from);
  require(std::memcmp(from.magic, event_magic, sizeof event_magic) == 0);
  require(from.process != getpid(), CUDA_ERROR_INVALID_CONTEXT);
  const auto owner = static_cast<int>(syscall(SYS_pidfd_open, from.process, 0));
  require(owner >= 0);
  const std::string path = "/proc/" + std::to_string(from.process) + "/fd/" + std::to_string(from.file);
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat found{};
  if (file < 0 || fstat(file, &found) != 0 || found.st_size != event_page_bytes) {
    if (file >= 0) close(file);
    close(owner);
    fail(CUDA_ERROR_INVALID_VALUE);
  }
  std::shared_ptr<event_page> opened(new event_page(file, owner));
  require(opened->page_ != nullptr && opened->page_->key == from.key);
  return opened;
}

event_page::~event_page() {
  if (page_ != nullptr) munmap(page_, event_page_bytes);
  close(file_);
  if (owner_ >= 0) close(owner_);
}

CUipcEventHandle event_page::handle() const {
  event_handle to{};
  std::memcpy(to.magic, event_magic, sizeof event_magic);
  to.process = getpid();
  to.file = file_;
  to.key = page_->key;
  CUipcEventHandle spelled{};
  std::memcpy(spelled.reserved, &to, sizeof to);
  return spelled;
}

bool event_page::has_reached(std::uint64_t record) const {
  raise_to(page_->wanted, record);
  if (page_->reached.load() >= record) return true;
  pollfd owner{owner_, POLLIN, 0};
  return poll(&owner, 1, 0) == 1;
}

void event_page::wait_for(std::uint64_t record) const {
  while (!has_reached(record)) std::this_thread::sleep_for(event_pause);
}

std::uint64_t last_record(const event_page& page) { return (*page).recorded.load(); }

void count_record(const event_page& page) { ++(*page).recorded; }

CUipcEventHandle share_event(const std::shared_ptr<simulated_event>& event) {
  require((event->flags & CU_EVENT_INTERPROCESS) != 0, CUDA_ERROR_INVALID_HANDLE);
  require(!event->page || event->page->is_own(), CUDA_ERROR_INVALID_HANDLE);
  if (!event->page) {
    event->page = event_page::make();
    if (event->record) count_record(*event->page);
    events_out().push_back(event);
    static const bool started = (std::thread(serve_for_ever).detach(), true);
    static_cast<void>(started);
  }
  return event->page->handle();
}

std::shared_ptr<simulated_event> open_event(primary_context& context, const CUipcEventHandle& handle) {
  auto opened = std::make_shared<simulated_event>(context, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
  opened->page = event_page::open(handle);
  return opened;
}

}  // namespace cenote::sim
