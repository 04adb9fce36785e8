// Copies and fills: work that touches memory.
//
// 1. At the call, each operand is looked up: known memory (its blocks are kept by the work), or the host's own,
//    pageable memory. An address of the simulator's where nothing lives is refused.
//    So is memory of a pool (pool/pool.hpp) and a mapping that is not open to the card of the stream:
//    CUDA_ERROR_INVALID_VALUE.
// 2. Pageable memory is staged as the driver does: a source is read at the call; a destination makes the call wait.
// 3. Where the machine has pageable access (ground/settings.hpp), a fill may go to the host's own memory; a copy out of
// it
//    therefore waits for the work before it, which may write there.
// 4. When the work runs, blocks that died in between are written down: they were freed before this work in the order of
//    streams. Memory of a pool is still there and is touched all the same, so that the wrong bytes show. Unmapped
//    memory is not; that was written down when it was unmapped (virtual_memory.cpp).
// 5. Work on mapped memory that is not ordered with pending work on the same physical memory is written down when it is
//    queued, whichever addresses the two were given (device/access_history.hpp).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sim/device/device.hpp"
#include "sim/device/physical_piece.hpp"
#include "sim/device/work.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/current_call.hpp"
#include "sim/ground/machine.hpp"
#include "sim/ground/violations.hpp"
#include "sim/memory/address_space.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"
#include "sim/stream/stream.hpp"

namespace cenote::sim {
namespace {

bool is_closed_mapping(const memory_block& block, const simulated_device& card) {
  return block.kind == block_kind::mapped && !block.open_to.test(static_cast<std::size_t>(card.ordinal));
}

struct copy_operand {
  std::uintptr_t address;
  std::size_t bytes;
  std::vector<std::shared_ptr<memory_block>> blocks;  ///< empty: pageable

  bool pageable() const { return blocks.empty(); }

  /// Whether work on the card may touch it: false for a pool or a mapping that is not open to the card.
  bool is_open_to(const simulated_device& card) const {
    return std::all_of(blocks.begin(), blocks.end(), [&](const auto& block) {
      return block->pool ? block->pool->is_open_to(card) : !is_closed_mapping(*block, card);
    });
  }

  /// The same for a copy, which reaches pools on the host in any case.
  bool is_open_to_copies_of(const simulated_device& card) const {
    return is_open_to(card) || std::all_of(blocks.begin(), blocks.end(), [&](const auto& block) {
             return block->pool ? !block->pool->place.on_device() : !is_closed_mapping(*block, card);
           });
  }
  std::byte* data() const { return reinterpret_cast<std::byte*>(address); }
};

copy_operand operand(std::uintptr_t address, std::size_t bytes) {
  require(address != 0 && address + bytes > address);
  copy_operand found{address, bytes, live_blocks().covering(address, bytes)};
  if (found.pageable() && (addresses().owns(address) || addresses().owns(address + bytes - 1))) {
    violations().add(std::to_string(bytes) + " bytes at " + hex(address) +
                     (addresses().is_retired(address)
                          ? " are memory of a machine before the last reset of the simulated driver"
                          : " are not all in live memory: freed, unmapped, or past the end of an allocation"));
    fail(CUDA_ERROR_INVALID_VALUE);
  }
  for (const auto& block : found.blocks) {
    if (block->kind == block_kind::mapped && block->open_to.none()) {
      violations().add("memory at " + hex(block->base) + " is mapped, and access to it was never set");
      fail(CUDA_ERROR_INVALID_VALUE);
    }
  }
  return found;
}

/// False where the memory is not there any more; work that comes after the free of its memory is written down.
bool still_there(const copy_operand& operand, const simulated_device& card, const char* call_name) {
  bool there = true;
  for (const auto& block : operand.blocks) {
    if (block->state == block_state::dead && block->kind == block_kind::mapped) {
      there = false;
    } else if (block->state == block_state::dead || is_closed_mapping(*block, card)) {
      violations().add("work of " + std::string(call_name) + " ran after " + block->ended_by +
                       " had taken away its memory at " + hex(block->base));
      there = there && block->kind != block_kind::mapped;
    }
  }
  return there;
}

/// The copy as work: it moves the bytes when it runs. A pageable source is read now.
queued_work copy_work(const copy_operand& to, const copy_operand& from, const simulated_device& card) {
  std::vector<std::byte> staged;
  if (from.pageable()) {
    staged.assign(from.data(), from.data() + from.bytes);
  }
  return {.after = {}, .action = [to, from, &card, staged = std::move(staged), name = current_call()] {
            if (still_there(to, card, name) && still_there(from, card, name)) {
              std::memmove(to.data(), staged.empty() ? from.data() : staged.data(), to.bytes);
            }
          }};
}

/// The side of a copy that is named as the device's cannot be the host's own memory.
void require_device_may_use(std::uintptr_t address, std::size_t bytes) {
  require(bytes == 0 || this_machine().settings.pageable || !operand(address, bytes).pageable());
}

enum class access_kind { read, write };

/// The work that is done at that point touches the operand. What else is pending there and not ordered with it is
/// written down, once.
void note_access(const copy_operand& operand, access_kind kind, const queue_point& done) {
  bool told = false;
  for (const auto& block : operand.blocks) {
    if (!block->physical) {
      continue;
    }
    const std::uintptr_t begin = std::max(operand.address, block->base);
    const std::uintptr_t end = std::min(operand.address + operand.bytes, block->base + block->bytes);
    const memory_access access{done, current_call(), begin, kind == access_kind::write};
    const auto other = block->physical->accesses.note(begin - block->base, end - begin, block->base, access);
    if (other && !told) {
      violations().add("work on memory at " + hex(begin) + " is not ordered after work of " + other->call +
                       " that is pending on another stream, on the same memory at " + hex(other->address));
      told = true;
    }
  }
}

/// Queues the copy. In a capture, a node does it at each launch, with what lies at the addresses then.
queue_point queue_copy(simulated_stream& stream, std::uintptr_t to_address, std::uintptr_t from_address,
                       std::size_t bytes) {
  const copy_operand to = operand(to_address, bytes);
  const copy_operand from = operand(from_address, bytes);
  const simulated_device& card = stream.context.device;
  require(to.is_open_to_copies_of(card) && from.is_open_to_copies_of(card));
  if (stream.capture) {
    stream.capture->record(
        stream, [=](simulated_stream& launched_on) { queue_copy(launched_on, to_address, from_address, bytes); });
    return {stream.queue, 0};
  }
  if (from.pageable() && this_machine().settings.pageable) {
    advance(stream.horizon());
  }
  const queue_point done = stream.submit(copy_work(to, from, card));
  note_access(from, access_kind::read, done);
  note_access(to, access_kind::write, done);
  return done;
}

/// The same for a fill.
void queue_fill(simulated_stream& stream, std::uintptr_t address, unsigned char value, std::size_t bytes) {
  const copy_operand to = operand(address, bytes);
  const simulated_device& card = stream.context.device;
  require(to.pageable() ? this_machine().settings.pageable : to.is_open_to(card));
  if (stream.capture) {
    stream.capture->record(stream,
                           [=](simulated_stream& launched_on) { queue_fill(launched_on, address, value, bytes); });
    return;
  }
  const auto action = [to, &card, value, name = current_call()] {
    if (still_there(to, card, name)) {
      std::memset(to.data(), value, to.bytes);
    }
  };
  note_access(to, access_kind::write, stream.submit({.after = {}, .action = action}));
}

enum class copy_until { queued, done };

CUresult copy(simulated_stream& stream, std::uintptr_t to, std::uintptr_t from, std::size_t bytes, copy_until until) {
  if (bytes == 0) {
    return CUDA_SUCCESS;
  }
  const queue_point done = queue_copy(stream, to, from, bytes);
  if (until == copy_until::done || live_blocks().find(to) == nullptr) {
    advance({done});
  }
  return CUDA_SUCCESS;
}

std::uintptr_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

}  // namespace
}  // namespace cenote::sim

using namespace cenote::sim;

extern "C" {

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
  return call(entry_id::cuMemcpy, [&] { return copy(*stream_of(nullptr), to, from, bytes, copy_until::done); });
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t bytes) {
  return call(entry_id::cuMemcpyHtoD_v2, [&] {
    require_device_may_use(to, bytes);
    return copy(*stream_of(nullptr), to, address_of(from), bytes, copy_until::done);
  });
}

CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) {
  return call(entry_id::cuMemcpyDtoH_v2, [&] {
    require_device_may_use(from, bytes);
    return copy(*stream_of(nullptr), address_of(to), from, bytes, copy_until::done);
  });
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
  return call(entry_id::cuMemcpyDtoD_v2, [&] {
    require_device_may_use(to, bytes);
    require_device_may_use(from, bytes);
    return copy(*stream_of(nullptr), to, from, bytes, copy_until::done);
  });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t bytes, CUstream stream) {
  return call(entry_id::cuMemcpyHtoDAsync_v2, [&] {
    require_device_may_use(to, bytes);
    return copy(*stream_of(stream), to, address_of(from), bytes, copy_until::queued);
  });
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  return call(entry_id::cuMemcpyDtoHAsync_v2, [&] {
    require_device_may_use(from, bytes);
    return copy(*stream_of(stream), address_of(to), from, bytes, copy_until::queued);
  });
}

CUresult cuMemsetD8_v2(CUdeviceptr address, unsigned char value, std::size_t bytes) {
  return call(entry_id::cuMemsetD8_v2, [&] {
    const auto on = stream_of(nullptr);
    if (bytes > 0) {
      queue_fill(*on, address, value, bytes);
      advance(on->horizon());
    }
  });
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  return call(entry_id::cuMemcpyAsync, [&] { return copy(*stream_of(stream), to, from, bytes, copy_until::queued); });
}

CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, std::size_t bytes, CUstream stream) {
  return call(entry_id::cuMemsetD8Async, [&] {
    const auto on = stream_of(stream);
    if (bytes > 0) {
      queue_fill(*on, address, value, bytes);
    }
  });
}

}  // extern "C"
