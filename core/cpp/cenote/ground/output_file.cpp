#include "cenote/ground/output_file.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "cenote/ground/environment.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

constexpr int most_links = 40;  // as the kernel's own bound
constexpr mode_t mode_of_new_files = 0666;

/// Returns the number that `text` spells; -1 if it spells none.
int parse_descriptor(std::string_view text) noexcept {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? number : -1;
}

/// The open descriptor that a path names; -1 if it names none.
int named_descriptor(std::string_view path) noexcept {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (path.starts_with(folder)) return parse_descriptor(path.substr(folder.size()));
  }
  return -1;
}

opened_file failure(int error) { return {-1, false, error, std::strerror(error)}; }

/// Whether it is one of the kernel's own links, such as /proc/1/fd/1, whose text need not be the name of anything.
bool is_link_of_kernel(int link) noexcept {
  struct statfs system{};
  return fstatfs(link, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

/// What a link at `path` names, in `path` itself, which stays where the link is the kernel's; empty text, or why it is
/// not followed.
std::string follow(std::string& path, bool& is_of_kernel) {
  const int link = open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (link < 0) return std::strerror(errno);
  struct stat found{};
  std::array<char, PATH_MAX> target{};
  const bool is_seen = fstat(link, &found) == 0;
  const ssize_t length = is_seen ? readlinkat(link, "", target.data(), target.size()) : -1;
  is_of_kernel = is_seen && S_ISLNK(found.st_mode) && is_link_of_kernel(link);
  close(link);
  if (is_seen && !S_ISLNK(found.st_mode)) return {};  // it is another file by now, which is tried again
  if (is_secure_execution()) return "it is a link, and a program with rights of its own follows none";
  if (is_seen && found.st_uid != geteuid() && found.st_uid != 0) return "it is a link that another user has made";
  if (is_of_kernel) return {};
  if (length < 0 || length == PATH_MAX) return "it is a link that cannot be read";
  const std::string_view named(target.data(), static_cast<std::size_t>(length));
  const auto folder_end = path.rfind('/');
  const bool is_relative = !named.starts_with('/') && folder_end != std::string::npos;
  path = (is_relative ? path.substr(0, folder_end + 1) : std::string{}).append(named);
  return {};
}

/// Writes all of the pieces, which it changes; errno's number, or 0.
int write_all(int descriptor, iovec* pieces, int count) noexcept {
  while (count > 0) {
    const ssize_t result = writev(descriptor, pieces, count);
    if (result < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    auto written = static_cast<std::size_t>(result);
    for (; count > 0 && written >= pieces->iov_len; ++pieces, --count) written -= pieces->iov_len;
    if (count == 0) break;
    pieces->iov_base = static_cast<char*>(pieces->iov_base) + written;
    pieces->iov_len -= written;
  }
  return 0;
}

}  // namespace

opened_file open_for_writing(const std::string& path) {
  std::string at = path;
  for (int links = 0; links <= most_links; ++links) {
    if (const int named = named_descriptor(at); named >= 0) {
      const int copy = fcntl(named, F_DUPFD_CLOEXEC, 0);
      return copy < 0 ? failure(errno) : opened_file{copy, true, 0, {}};
    }
    const int file =
        open(at.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, mode_of_new_files);
    if (file >= 0) return {file, false, 0, {}};
    if (errno != ELOOP) return failure(errno);
    bool is_of_kernel = false;
    if (const std::string why = follow(at, is_of_kernel); !why.empty()) return {-1, false, ELOOP, why};
    if (is_of_kernel) {
      const int opened = open(at.c_str(), O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
      return opened < 0 ? failure(errno) : opened_file{opened, true, 0, {}};
    }
  }
  return failure(ELOOP);
}

int open_for_mapping(const std::string& path) noexcept {
  return open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, S_IRUSR | S_IWUSR);
}

struct output_file::writer {
  static constexpr std::size_t capacity = 8192;

  writer(int open, bool begins_anew, const struct stat& file) noexcept
      : descriptor(open), is_begun_anew(begins_anew), device(file.st_dev), inode(file.st_ino) {}

  const int descriptor;
  const bool is_begun_anew;  // by those who open it, when they may
  const dev_t device;
  const ino_t inode;
  std::size_t owners = 1;  // guarded by the mutex of open_files, as `next` is
  writer* next = nullptr;
  const unsigned opened_in = process_generation();
  std::atomic<bool> is_buffered{true};

  object_mutex mutex;  // guards all below
  int error = 0;       // the first one since the file was begun
  std::size_t used = 0;
  std::array<char, capacity> buffer;

  bool is_inherited() const noexcept { return opened_in != process_generation(); }

  bool is(const struct stat& file) const noexcept { return device == file.st_dev && inode == file.st_ino; }

  void begin() {
    const std::lock_guard lock(mutex);
    used = 0;
    error = 0;
    if (ftruncate(descriptor, 0) != 0) error = errno;
  }

  bool write_out_locked(iovec* more = nullptr, int count = 0) noexcept {
    std::array<iovec, 1> own{iovec{buffer.data(), used}};
    int failed = write_all(descriptor, own.data(), used != 0 ? 1 : 0);
    used = 0;
    if (failed == 0) failed = write_all(descriptor, more, count);
    if (error == 0) error = failed;
    return failed == 0;
  }

  bool write_locked(std::span<const std::string_view> parts) noexcept {
    std::size_t bytes = 0;
    for (const std::string_view part : parts) bytes += part.size();
    const bool had_room = used + bytes <= capacity;
    bool is_written = had_room || write_out_locked();
    if (bytes > capacity) {
      for (const std::string_view part : parts) {
        iovec piece{const_cast<char*>(part.data()), part.size()};  // it is only read
        is_written = write_out_locked(&piece, 1) && is_written;
      }
      return is_written;
    }
    for (const std::string_view part : parts) used += part.copy(buffer.data() + used, part.size());
    return is_buffered ? is_written : write_out_locked() && is_written;
  }
};

/// The writers of this process.
struct output_file::open_files {
  process_mutex mutex;  // guards all below
  writer* first = nullptr;
  bool process_ends = false;

  writer* find_locked(const struct stat& file) noexcept {
    writer* each = first;
    while (each != nullptr && !each->is(file)) each = each->next;
    return each;
  }

  void remove_locked(const writer& gone) noexcept {
    writer** place = &first;
    while (*place != &gone) place = &(*place)->next;
    *place = gone.next;
  }

  /// At the end of the process: from now on lines are written at once.
  void write_out_for_good() {
    const std::lock_guard lock(mutex);
    process_ends = true;
    for (writer* each = first; each != nullptr; each = each->next) {
      each->is_buffered = false;
      const std::lock_guard held(each->mutex);
      each->write_out_locked();
    }
  }

  /// In a forked child, which has one thread: closing takes no lock of the parent's away.
  void forget() noexcept {
    for (writer* each = first; each != nullptr; each = each->next) close(each->descriptor);
    first = nullptr;
  }
};

output_file::open_files& output_file::all() {
  static immortal<open_files> the_one;
  [[maybe_unused]] static const int at_the_end = std::atexit([] { all().write_out_for_good(); });
  [[maybe_unused]] static const int at_a_fork = pthread_atfork(nullptr, nullptr, [] { all().forget(); });
  return *the_one;
}

output_file::output_file(const char* what, const std::string& path, sharing with, std::string_view heading) {
  const auto fail = [&](const std::string& why) {
    throw std::runtime_error(std::string("the ") + what + " '" + path + "' cannot be opened: " + why);
  };
  open_files& files = all();
  const std::lock_guard lock(files.mutex);
  const opened_file opened = open_for_writing(path);
  if (opened.descriptor < 0) fail(opened.why);
  struct closing {
    int descriptor;
    ~closing() {
      if (descriptor >= 0) close(descriptor);
    }
  } closing{opened.descriptor};
  struct stat file{};
  if (fstat(opened.descriptor, &file) != 0) fail(std::strerror(errno));

  writer_ = files.find_locked(file);
  bool may_begin = with == sharing::alone;
  if (writer_ == nullptr) {
    const bool is_kept = S_ISREG(file.st_mode) && !opened.is_inherited;
    if (is_kept) {
      const bool is_ours = flock(opened.descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
      if (!is_ours && with == sharing::alone) {
        fail(
            "another process is writing it; with %p, which stands for the number of the process, in its name each "
            "process has one of its own");
      }
      may_begin = is_ours && with != sharing::appended;
      if (with != sharing::alone) flock(opened.descriptor, LOCK_SH | LOCK_NB);
    }
    auto fresh = std::make_unique<writer>(opened.descriptor, is_kept, file);
    fresh->is_buffered = !files.process_ends;
    fresh->next = files.first;
    closing.descriptor = -1;
    files.first = writer_ = fresh.release();
  } else {
    ++writer_->owners;
  }
  if (!may_begin && writer_->is_begun_anew) return;
  if (writer_->is_begun_anew) writer_->begin();
  const std::lock_guard held(writer_->mutex);
  if (!heading.empty()) writer_->write_locked({&heading, 1});
}

output_file::~output_file() {
  if (writer_->is_inherited()) return;
  open_files& files = all();
  const std::lock_guard lock(files.mutex);
  if (--writer_->owners != 0) return;
  files.remove_locked(*writer_);
  writer_->write_out_locked();
  close(writer_->descriptor);
  delete writer_;
}

bool output_file::write(std::span<const std::string_view> parts) noexcept {
  if (writer_->is_inherited()) return true;
  const std::lock_guard lock(writer_->mutex);
  return writer_->write_locked(parts);
}

int output_file::flush() {
  const std::lock_guard lock(writer_->mutex);
  writer_->write_out_locked();
  return writer_->error;
}

std::string with_process_number(std::string name) {
  const std::string number = std::to_string(getpid());
  for (auto at = name.find("%p"); at != std::string::npos; at = name.find("%p", at + number.size())) {
    name.replace(at, 2, number);
  }
  return name;
}

}  // namespace cenote::inline v1
