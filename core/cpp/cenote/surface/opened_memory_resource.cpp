#include "cenote/surface/opened_memory_resource.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/driver.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/imported_pages.hpp"
#include "cenote/driver/imported_pool_block.hpp"
#include "cenote/ground/process.hpp"
#include "cenote/surface/block_handle.hpp"
#include "cenote/surface/block_messages.hpp"
#include "cenote/surface/local_socket.hpp"

namespace cenote::inline v1 {
namespace {

constexpr auto longest_wait = std::chrono::seconds(20);

std::string owner_of(const block_handle& handle) { return "process " + std::to_string(handle.owner); }

int device_of_handle(const block_handle& handle) {
  for (int device = 0; device < device_count(); ++device) {
    if (device_uuid(device) == handle.device) return device;
  }
  throw std::runtime_error("the block is on device " + handle.device +
                           ", which this process does not see: look at CUDA_VISIBLE_DEVICES of both processes");
}

[[noreturn]] void say_that_it_ended(const block_handle& handle) {
  throw std::runtime_error("the block cannot be opened: " + owner_of(handle) +
                           ", which shared it, has ended, or is in another network namespace");
}

bool has_ended(const block_handle& handle) { return kill(handle.owner, 0) != 0 && errno == ESRCH; }

local_socket connect_to_owner(const block_handle& handle) {
  if (handle.owner == getpid()) {
    throw std::runtime_error("the block is this process's own: use it as it is, for a handle is for other processes");
  }
  auto connection = local_socket::connect(handle.endpoint);
  if (!connection || has_ended(handle)) say_that_it_ended(handle);
  const auto user = connection->peer_user();
  if (user != geteuid()) {
    throw std::runtime_error("the block cannot be opened: " + owner_of(handle) + ", which shared it, is of user " +
                             (user ? std::to_string(*user) : "unknown") + ", and this one of user " +
                             std::to_string(geteuid()));
  }
  connection->set_patience(longest_wait);
  return std::move(*connection);
}

block_answer ask_owner(const local_socket& connection, const block_handle& handle) {
  block_answer answer{};
  if (!connection.send(&handle.request, sizeof(handle.request)) || !connection.receive(&answer, sizeof(answer))) {
    if (has_ended(handle)) say_that_it_ended(handle);
    answer.status = block_status::freed;  // the offer was withdrawn
  }
  switch (answer.status) {
    case block_status::open:
      if (answer.offset > answer.bytes || handle.bytes > answer.bytes - answer.offset) break;
      return answer;
    case block_status::freed:
      throw std::runtime_error("the block cannot be opened: " + owner_of(handle) + ", which shared it, has freed it");
    case block_status::failed:
      break;
  }
  throw std::runtime_error("the block cannot be opened: " + owner_of(handle) +
                           " could not export it, and has reported why");
}

/// The current device, where it is another one that reaches the block's.
std::vector<int> peers_that_reach(int device) {
  const int current = current_device();
  int can = 0;
  if (current != device) CENOTE_DRIVER_CALL(cuDeviceCanAccessPeer, &can, current, device);
  return can != 0 ? std::vector<int>{current} : std::vector<int>{};
}

}  // namespace

struct opened_memory_resource::mapped {
  block_handle handle;
  int device;
  local_socket connection;  // while it lives the owner keeps the block
  block_answer answer;
  std::optional<imported_pages> pages{};  // one of these two
  std::optional<imported_pool_block> pool_block{};
  std::byte* address = nullptr;
  std::shared_ptr<event> written{};
  std::atomic<bool> is_taken{false};

  explicit mapped(const std::string& text)
      : handle(parse_block_handle(text)),
        device(device_of_handle(handle)),
        connection(connect_to_owner(handle)),
        answer(ask_owner(connection, handle)) {
    const std::vector<int> peers = peers_that_reach(device);
    answer.pages != 0 ? map_pages(peers) : map_pool_block(peers);
    written = event::open(answer.written, device);
  }

  ~mapped() { let_go(); }

  template <class Message>
  file_descriptor receive(Message& message) const {
    file_descriptor came;
    if (connection.receive(&message, sizeof(message), &came) && came) return came;
    if (has_ended(handle)) say_that_it_ended(handle);
    throw std::runtime_error("the block cannot be opened: not all that " + owner_of(handle) + " has sent did arrive");
  }

  void map_pages(const std::vector<int>& peers) {
    pages.emplace(device, answer.bytes);
    for (std::uint64_t i = 0; i < answer.pages; ++i) {
      page_bytes_message bytes = 0;
      const file_descriptor page = receive(bytes);
      pages->add(page, bytes, peers);
    }
    if (pages->mapped_bytes() != answer.bytes) {
      throw std::runtime_error("the block cannot be opened: " + owner_of(handle) + " has sent less than it said");
    }
    address = pages->base() + answer.offset;
  }

  void map_pool_block(const std::vector<int>& peers) {
    exported_pool_block exported{};
    exported.pool = receive(exported.pointer);
    pool_block.emplace(device, exported, peers);
    address = pool_block->address();
  }

  /// An event of another process orders work of its own device: a stream there passes it on to one of another device.
  void order_after_writing(stream_ref stream) const {
    if (device_of_stream(stream, device) == device) return wait(stream, *written, device);
    const cuda_stream there(device, cuda_stream::kind::non_blocking);
    wait(there, *written, device);
    wait(stream, *event::record(there, device), device);
  }

  void let_go() noexcept {
    address = nullptr;
    written.reset();
    pages.reset();
    pool_block.reset();
    if (!driver_is_gone()) connection.shut_down();
  }
};

opened_memory_resource::opened_memory_resource(const std::string& handle)
    : opened_memory_resource(std::make_unique<mapped>(handle)) {}

opened_memory_resource::opened_memory_resource(std::unique_ptr<mapped> block)
    : memory_resource(block->device), mapped_(std::move(block)) {}

opened_memory_resource::~opened_memory_resource() = default;

std::size_t opened_memory_resource::bytes() const noexcept { return mapped_->handle.bytes; }

memory_state opened_memory_resource::state() const {
  memory_state figures;
  figures.in_use = mapped_->is_taken ? bytes() : 0;
  return figures;
}

void* opened_memory_resource::do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) {
  std::byte* const block = mapped_->address;
  if (bytes > this->bytes() || block == nullptr || mapped_->is_taken.exchange(true)) return nullptr;
  if (reinterpret_cast<std::uintptr_t>(block) % alignment != 0) {
    mapped_->is_taken = false;
    return nullptr;
  }
  mapped_->order_after_writing(stream);
  return block;
}

void opened_memory_resource::do_deallocate(stream_ref stream, void*, std::size_t, std::size_t) {
  synchronize(stream, mapped_->device);
  mapped_->let_go();
}

}  // namespace cenote::inline v1
