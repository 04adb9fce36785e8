#include "cenote/surface/block_offer.hpp"

#include <unistd.h>

#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cenote/driver/device.hpp"
#include "cenote/driver/event.hpp"
#include "cenote/driver/exported_pages.hpp"
#include "cenote/driver/exported_pool_block.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/process.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/block_handle.hpp"
#include "cenote/surface/block_messages.hpp"
#include "cenote/surface/endpoint.hpp"

namespace cenote::inline v1 {
namespace {

constexpr char how_to_share[] =
    "this memory cannot be mapped by another process. Take the block from the resource \"pool | virtual\", without "
    "ipc=false, on a device with virtual memory";

/// Keeps the pool from moving the block, where it is one of a pool's.
class exported_pin {
 public:
  exported_pin(std::shared_ptr<memory_resource> resource, const void* address) : address_(address) {
    for (; resource != nullptr; resource = resource->upstream()) {
      auto pool = std::dynamic_pointer_cast<pool_memory_resource>(resource);
      if (pool == nullptr) continue;
      try {
        pool->pin(address, pin_kind::exported);
        pool_ = std::move(pool);
      } catch (const std::invalid_argument&) {  // a part of one of its blocks, which whoever has that keeps
      }
      return;
    }
  }
  ~exported_pin() {
    if (pool_ == nullptr || driver_is_gone()) return;
    try {
      pool_->unpin(address_, pin_kind::exported);
    } catch (const std::exception& error) {
      report_once("a block that was shared stays pinned: ", error.what());
    }
  }
  exported_pin(const exported_pin&) = delete;
  exported_pin& operator=(const exported_pin&) = delete;

 private:
  const void* address_;
  std::shared_ptr<pool_memory_resource> pool_;
};

/// Keeps the block for one process that has it open.
struct block_use {
  block_use(std::shared_ptr<void> held, std::shared_ptr<event> written, std::shared_ptr<memory_resource> resource,
            const void* address)
      : block(std::move(held)), written(std::move(written)), pin(std::move(resource), address) {}

  std::shared_ptr<void> block;
  std::shared_ptr<event> written;
  exported_pin pin;  // goes before the block
};

bool can_be_exported(const void* address, std::size_t bytes, int device) {
  const std::vector<page_place> pages = pages_under(address, bytes, device);
  if (pages.empty()) return export_pool_block(address, device).has_value();
  try {
    export_page(pages.front(), device);
    return true;
  } catch (const cuda_error&) {
    return false;
  }
}

}  // namespace

class block_offer::answers final : public offer {
 public:
  answers(const void* address, std::size_t bytes, std::shared_ptr<memory_resource> resource, hold_function hold)
      : address(address), bytes(bytes), resource(std::move(resource)), hold_(std::move(hold)) {}

  void order_after(stream_ref stream) {
    auto recorded = event::record_for_others(stream, resource->device());
    const std::lock_guard lock(mutex_);
    written_.swap(recorded);
  }

  std::shared_ptr<void> answer(const local_socket& asking) override {
    auto block = driver_is_gone() ? nullptr : hold_();
    if (block == nullptr) {
      refuse(asking, block_status::freed);
      return nullptr;
    }
    try {
      auto use = std::make_shared<block_use>(std::move(block), written(), resource, address);
      return send(asking, *use->written) ? use : nullptr;
    } catch (...) {
      refuse(asking, block_status::failed);
      throw;
    }
  }

  const void* const address;
  const std::size_t bytes;
  const std::shared_ptr<memory_resource> resource;

 private:
  std::shared_ptr<event> written() {
    const std::lock_guard lock(mutex_);
    return written_;
  }

  static void refuse(const local_socket& asking, block_status why) {
    const block_answer answer{why, 0, 0, 0, {}};
    asking.send(&answer, sizeof(answer));
  }

  bool send(const local_socket& asking, const event& written) const {
    const int device = resource->device();
    const std::vector<page_place> pages = pages_under(address, bytes, device);
    block_answer answer{block_status::open, pages.size(), 0, 0, written.handle()};
    if (pages.empty()) return send_pool_block(asking, answer);
    answer.offset = static_cast<std::uint64_t>(static_cast<const std::byte*>(address) - pages.front().address);
    for (const page_place& page : pages) answer.bytes += page.bytes;
    if (!asking.send(&answer, sizeof(answer))) return false;
    for (const page_place& page : pages) {
      const file_descriptor exported = export_page(page, device);
      const page_bytes_message size = page.bytes;
      if (!asking.send(&size, sizeof(size), exported.value())) return false;
    }
    return true;
  }

  bool send_pool_block(const local_socket& asking, block_answer answer) const {
    const auto exported = export_pool_block(address, resource->device());
    if (!exported) throw std::runtime_error(how_to_share);
    answer.bytes = bytes;
    return asking.send(&answer, sizeof(answer)) &&
           asking.send(&exported->pointer, sizeof(pool_block_message), exported->pool.value());
  }

  hold_function hold_;
  object_mutex mutex_;  // guards all below
  std::shared_ptr<event> written_;
};

block_offer::block_offer(const void* address, std::size_t bytes, stream_ref stream,
                         std::shared_ptr<memory_resource> resource, hold_function hold) {
  require_upstream(resource, "a shared block");
  if (bytes == 0) throw std::invalid_argument("a block of no bytes cannot be shared");
  const int device = resource->device();
  if (!can_be_exported(address, bytes, device)) throw std::runtime_error(how_to_share);
  answers_ = std::make_shared<answers>(address, bytes, std::move(resource), std::move(hold));
  answers_->order_after(stream);
  endpoint& here = endpoint::of_this_process();
  const endpoint_request request = here.add(answers_);
  number_ = request.number;
  key_ = request.key;
  handle_ = spell({here.name(), getpid(), request, device_uuid(device), bytes});
}

block_offer::~block_offer() {
  if (!driver_is_gone()) endpoint::of_this_process().withdraw({number_, key_});
}

void block_offer::share_again(stream_ref stream) { answers_->order_after(stream); }

const void* block_offer::address() const noexcept { return answers_->address; }

std::size_t block_offer::bytes() const noexcept { return answers_->bytes; }

const std::string& block_offer::handle() const noexcept { return handle_; }

}  // namespace cenote::inline v1
