#include "shared_memory.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>
#include <cuda.h>
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace cenote::torch {
namespace {

constexpr char magic[] = "cenote";
constexpr std::size_t page_alignment = std::size_t{2} << 20;

constexpr char how_to_share[] =
    "this memory cannot be mapped by another process. Pages can, if that is asked for when they are made: "
    "cenote.install(\"pool | virtual:ipc=true\")";

/// The driver's functions for pages, of the library that is loaded already.
struct page_functions {
  decltype(&cuMemRetainAllocationHandle) retain;
  decltype(&cuMemExportToShareableHandle) export_page;
  decltype(&cuMemImportFromShareableHandle) import_page;
  decltype(&cuMemRelease) release;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) free_addresses;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
  CUresult (*range)(CUdeviceptr*, std::size_t*, CUdeviceptr);

  static const page_functions& get() {
    static const page_functions loaded = load();
    return loaded;
  }

 private:
  static page_functions load() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    TORCH_CHECK(library != nullptr, "libcuda.so.1 cannot be loaded");
    page_functions loaded{};
    const auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      TORCH_CHECK(function != nullptr, std::string("the driver has no ") + name);
    };
    find(loaded.retain, "cuMemRetainAllocationHandle");
    find(loaded.export_page, "cuMemExportToShareableHandle");
    find(loaded.import_page, "cuMemImportFromShareableHandle");
    find(loaded.release, "cuMemRelease");
    find(loaded.reserve, "cuMemAddressReserve");
    find(loaded.free_addresses, "cuMemAddressFree");
    find(loaded.map, "cuMemMap");
    find(loaded.unmap, "cuMemUnmap");
    find(loaded.set_access, "cuMemSetAccess");
    find(loaded.range, "cuMemGetAddressRange_v2");
    return loaded;
  }
};

struct request {
  std::uint64_t address;
  std::uint64_t bytes;
  std::int32_t device;
};

/// Before the pages: how many there are, and where in them the block begins. No pages: it cannot be shared.
struct announcement {
  std::uint64_t pages;
  std::uint64_t bytes;
  std::uint64_t offset;
};

struct page_range {
  CUdeviceptr base;
  std::size_t bytes;
};

std::vector<page_range> pages_under(std::uint64_t address, std::uint64_t bytes) {
  std::vector<page_range> pages;
  for (CUdeviceptr at = address; at < address + bytes; at = pages.back().base + pages.back().bytes) {
    page_range page{};
    if (page_functions::get().range(&page.base, &page.bytes, at) != CUDA_SUCCESS || page.bytes == 0) return {};
    pages.push_back(page);
  }
  return pages;
}

/// A descriptor of the page; -1 where it cannot be exported.
int export_page(CUdeviceptr base) {
  CUmemGenericAllocationHandle handle = 0;
  if (page_functions::get().retain(&handle, reinterpret_cast<void*>(base)) != CUDA_SUCCESS) return -1;
  int descriptor = -1;
  const CUresult result =
      page_functions::get().export_page(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
  page_functions::get().release(handle);
  return result == CUDA_SUCCESS ? descriptor : -1;
}

bool is_page(void* pointer) {
  CUmemGenericAllocationHandle handle = 0;
  if (page_functions::get().retain(&handle, pointer) != CUDA_SUCCESS) return false;
  page_functions::get().release(handle);
  return true;
}

sockaddr_un address_of(const std::string& name, socklen_t& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;  // in the abstract namespace: no file is left behind
  std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof(address.sun_path) - 1));
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

bool is_of_same_user(int connection) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == geteuid();
}

bool send_page(int connection, std::uint64_t bytes, int descriptor) {
  iovec data{&bytes, sizeof(bytes)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  return sendmsg(connection, &message, MSG_NOSIGNAL) == sizeof(bytes);
}

/// The descriptor, and the bytes of its page; -1 if none came.
int receive_page(int connection, std::uint64_t& bytes) {
  iovec data{&bytes, sizeof(bytes)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) != sizeof(bytes)) return -1;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(header), sizeof(int));
  return descriptor;
}

class descriptor_guard {
 public:
  explicit descriptor_guard(int descriptor) : descriptor_(descriptor) {}
  ~descriptor_guard() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  descriptor_guard(const descriptor_guard&) = delete;
  descriptor_guard& operator=(const descriptor_guard&) = delete;

 private:
  int descriptor_;
};

/// A range of addresses with pages in it, which ends after the work of its device.
class mapped_range {
 public:
  mapped_range(std::size_t bytes, int device) : device_(device) {
    const CUresult result = page_functions::get().reserve(&base_, bytes, page_alignment, 0, 0);
    TORCH_CHECK(result == CUDA_SUCCESS,
                std::string() + "no addresses for the memory of another process: error " + std::to_string(result));
    reserved_ = bytes;
  }
  ~mapped_range() {
    c10::cuda::OptionalCUDAGuard guard;
    try {
      guard.set_index(static_cast<c10::DeviceIndex>(device_));
    } catch (...) {  // the process ends
      return;
    }
    if (cudaDeviceSynchronize() != cudaSuccess) return;
    for (const page_range& page : pages_) page_functions::get().unmap(page.base, page.bytes);
    page_functions::get().free_addresses(base_, reserved_);
  }
  mapped_range(const mapped_range&) = delete;
  mapped_range& operator=(const mapped_range&) = delete;

  void add(int descriptor, std::size_t bytes) {
    CUmemGenericAllocationHandle handle = 0;
    CUresult result =
        page_functions::get().import_page(&handle, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)),
                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    TORCH_CHECK(result == CUDA_SUCCESS,
                std::string() + "a page of another process cannot be imported: error " + std::to_string(result));
    result = page_functions::get().map(base_ + mapped_, bytes, 0, handle, 0);
    page_functions::get().release(handle);  // the mapping holds it
    TORCH_CHECK(result == CUDA_SUCCESS,
                std::string() + "a page of another process cannot be mapped: error " + std::to_string(result));
    pages_.push_back({base_ + mapped_, bytes});
    mapped_ += bytes;
  }

  void open() {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device_;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    const CUresult result = page_functions::get().set_access(base_, mapped_, &access, 1);
    TORCH_CHECK(result == CUDA_SUCCESS,
                std::string() + "the memory of another process cannot be opened: error " + std::to_string(result));
  }

  char* base() const { return reinterpret_cast<char*>(base_); }

 private:
  int device_;
  CUdeviceptr base_ = 0;
  std::size_t reserved_ = 0;
  std::size_t mapped_ = 0;
  std::vector<page_range> pages_;
};

/// "cenote page SOCKET ADDRESS BYTES DEVICE" or "cenote driver OFFSET 64-bytes-in-hex".
std::vector<std::string> words_of(const std::string& handle) {
  std::vector<std::string> words(1);
  for (const char each : handle) {
    if (each == ' ') {
      words.emplace_back();
    } else {
      words.back() += each;
    }
  }
  return words;
}

std::string spell_driver_handle(const cudaIpcMemHandle_t& handle, std::size_t offset) {
  std::string text = std::string(magic) + " driver " + std::to_string(offset) + ' ';
  for (const char each : handle.reserved) {
    const auto byte = static_cast<unsigned char>(each);
    text += "0123456789abcdef"[byte / 16];
    text += "0123456789abcdef"[byte % 16];
  }
  return text;
}

cudaIpcMemHandle_t parse_driver_handle(const std::string& hex) {
  cudaIpcMemHandle_t handle{};
  TORCH_CHECK(hex.size() == 2 * sizeof(handle.reserved), "a handle of another process is cut off");
  for (std::size_t i = 0; i < sizeof(handle.reserved); ++i) {
    handle.reserved[i] = static_cast<char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return handle;
}

}  // namespace

bool shared_memory::is_handle(const std::string& handle) { return handle.rfind(magic, 0) == 0; }

void shared_memory::serve_locked() {
  if (owner_ == getpid()) return;
  std::random_device random;
  const std::string name =
      std::string(magic) + '-' + std::to_string(getpid()) + '-' + std::to_string(random()) + std::to_string(random());
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  TORCH_CHECK(listener >= 0, std::string("no socket for sharing memory: ") + std::strerror(errno));
  socklen_t length = 0;
  const sockaddr_un address = address_of(name, length);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), length) != 0 || ::listen(listener, 64) != 0) {
    const int error = errno;
    ::close(listener);
    TORCH_CHECK(false, std::string("no socket for sharing memory: ") + std::strerror(error));
  }
  socket_ = name;
  owner_ = getpid();
  std::thread([this, listener] {
    for (;;) {
      const int connection = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) {
        if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE) continue;
        return;
      }
      const descriptor_guard guard(connection);
      try {
        if (is_of_same_user(connection)) answer(connection);
      } catch (const std::exception&) {  // the receiver sees that nothing comes, and says so
      }
    }
  }).detach();
}

void shared_memory::answer(int connection) const {
  request wanted{};
  if (recv(connection, &wanted, sizeof(wanted), 0) != sizeof(wanted)) return;
  std::vector<page_range> pages;
  if (find_(reinterpret_cast<void*>(wanted.address)) >= wanted.bytes) {
    C10_CUDA_CHECK(cudaSetDevice(wanted.device));
    pages = pages_under(wanted.address, wanted.bytes);
  }
  announcement said{pages.size(), 0, pages.empty() ? 0 : wanted.address - pages.front().base};
  for (const page_range& page : pages) said.bytes += page.bytes;
  if (send(connection, &said, sizeof(said), MSG_NOSIGNAL) != sizeof(said)) return;
  for (const page_range& page : pages) {
    const int descriptor = export_page(page.base);
    const descriptor_guard guard(descriptor);
    if (descriptor < 0 || !send_page(connection, page.bytes, descriptor)) return;
  }
}

std::string shared_memory::share(void* pointer, std::size_t bytes, int device) {
  if (!is_page(pointer)) {
    cudaIpcMemHandle_t handle{};
    if (cudaIpcGetMemHandle(&handle, pointer) != cudaSuccess) {
      (void)cudaGetLastError();
      TORCH_CHECK(false, how_to_share);
    }
    CUdeviceptr base = 0;
    std::size_t size = 0;
    page_functions::get().range(&base, &size, reinterpret_cast<CUdeviceptr>(pointer));
    return spell_driver_handle(handle, reinterpret_cast<CUdeviceptr>(pointer) - base);
  }
  const int descriptor = export_page(pages_under(reinterpret_cast<CUdeviceptr>(pointer), 1).front().base);
  TORCH_CHECK(descriptor >= 0, how_to_share);
  ::close(descriptor);
  const std::lock_guard lock(mutex_);
  serve_locked();
  return std::string(magic) + " page " + socket_ + ' ' + std::to_string(reinterpret_cast<std::uintptr_t>(pointer)) +
         ' ' + std::to_string(bytes) + ' ' + std::to_string(device);
}

std::shared_ptr<void> shared_memory::map(const std::string& name, std::uint64_t address, std::uint64_t bytes,
                                         int device) {
  const int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const descriptor_guard guard(connection);
  socklen_t length = 0;
  const sockaddr_un peer = address_of(name, length);
  TORCH_CHECK(connection >= 0 && connect(connection, reinterpret_cast<const sockaddr*>(&peer), length) == 0,
              std::string("the process that has sent this memory is gone, or in another network namespace: ") +
                  std::strerror(errno));
  const request wanted{address, bytes, device};
  announcement said{};
  TORCH_CHECK(send(connection, &wanted, sizeof(wanted), MSG_NOSIGNAL) == sizeof(wanted) &&
                  recv(connection, &said, sizeof(said), 0) == sizeof(said) && said.pages != 0,
              "the process that has sent this memory does not have it any more");
  const auto range = std::make_shared<mapped_range>(static_cast<std::size_t>(said.bytes), c10::cuda::current_device());
  for (std::uint64_t page = 0; page < said.pages; ++page) {
    std::uint64_t page_size = 0;
    const int descriptor = receive_page(connection, page_size);
    const descriptor_guard closed(descriptor);
    TORCH_CHECK(descriptor >= 0, "a page of another process did not arrive");
    range->add(descriptor, static_cast<std::size_t>(page_size));
  }
  range->open();
  return {range, range->base() + said.offset};
}

std::shared_ptr<void> shared_memory::open(const std::string& handle) {
  const std::lock_guard lock(mutex_);
  auto& known = open_[handle];
  if (auto opened = known.lock()) return opened;
  const std::vector<std::string> words = words_of(handle);
  std::shared_ptr<void> opened;
  if (words.size() == 4 && words[1] == "driver") {
    void* base = nullptr;
    C10_CUDA_CHECK(cudaIpcOpenMemHandle(&base, parse_driver_handle(words[3]), cudaIpcMemLazyEnablePeerAccess));
    const c10::DeviceIndex device = c10::cuda::current_device();
    const std::shared_ptr<void> memory(base, [device](void* closed) {
      const c10::cuda::CUDAGuard guard(device);
      (void)cudaIpcCloseMemHandle(closed);
    });
    opened = {memory, static_cast<char*>(base) + std::stoull(words[2])};
  } else {
    TORCH_CHECK(words.size() == 6 && words[1] == "page", "a handle of another process is not understood");
    opened = map(words[2], std::stoull(words[3]), std::stoull(words[4]), std::stoi(words[5]));
  }
  known = opened;
  return opened;
}

}  // namespace cenote::torch
