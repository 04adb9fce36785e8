// Untyped memory of a resource that frees itself: allocation, size, copies, all in stream order.
//
// It remembers its resource (and keeps it alive), its stream, its alignment and its device, and is freed on the stream
// it used last, whatever device is current. Contents are not initialised. capacity() ≥ size(); shrinking keeps the
// memory. A buffer that was moved from is empty, of the same resource, and can be used again.
//
// Order. A function that takes a stream orders itself with stream(): its work comes after what is queued there, and
// what is queued there later comes after its work. That costs nothing where the two are one stream, an event and a wait
// each way where they are not. If stream() is the per-thread default stream of another thread, the work comes after all
// work of the device, and so does the end of the memory (driver/kept_stream.hpp).
//
// Threads: as std::vector: reading from several, changing from one.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "cenote/driver/kept_stream.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/surface/registry.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class device_buffer {
 public:
  device_buffer(std::size_t bytes, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource());
  /// Throws std::invalid_argument if `alignment` is no power of two. Every address is a multiple of 256 at least.
  device_buffer(std::size_t bytes, std::size_t alignment, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource());

  /// Copies `bytes` from host or device memory. Throws std::logic_error if `source` is null and `bytes` is not 0.
  device_buffer(const void* source, std::size_t bytes, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource());
  device_buffer(const void* source, std::size_t bytes, std::size_t alignment, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource());

  /// Copies the size() bytes of `other`, with its alignment, in order with other.stream().
  device_buffer(const device_buffer& other, stream_ref stream,
                std::shared_ptr<memory_resource> resource = get_current_device_resource());

  /// The contents of `other` in memory of `capacity` bytes, not less than its size(), of the same resource, in order
  /// with other.stream() so far. `other` must not be used or freed before the copy on `stream` is done.
  device_buffer(const device_buffer& other, std::size_t capacity, stream_ref stream);

  device_buffer(const device_buffer&) = delete;  // a copy needs a stream
  device_buffer& operator=(const device_buffer&) = delete;
  ~device_buffer();
  device_buffer(device_buffer&& other) noexcept;
  device_buffer& operator=(device_buffer&& other) noexcept;

  void* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::ptrdiff_t ssize() const noexcept { return static_cast<std::ptrdiff_t>(size_); }
  bool is_empty() const noexcept { return size_ == 0; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t alignment() const noexcept { return alignment_; }

  /// The stream that it was used on last. The per-thread default stream means the thread's that used it: on another
  /// thread begin_use() orders with it.
  stream_ref stream() const noexcept { return stream_.handle(); }
  int device() const noexcept { return resource_->device(); }
  const std::shared_ptr<memory_resource>& resource() const noexcept { return resource_; }

  /// The same, for whoever orders with it (driver/kept_stream.hpp).
  const kept_stream& kept() const noexcept { return stream_; }

  /// From now on the buffer is used on, and freed on, `stream`; ordering the two is the caller's affair.
  void set_stream(stream_ref stream) noexcept { stream_ = stream; }

  /// For work on the memory that others queue on `stream`, between these two: it comes after the work queued on
  /// stream() so far, and what is queued there afterwards comes after it. stream() stays. `device` is that of a default
  /// stream, the buffer's own if not given. Throw std::runtime_error where only an event could help that would end a
  /// capture.
  void begin_use(stream_ref stream) const { begin_use(stream, device()); }
  void begin_use(stream_ref stream, int device) const;
  void end_use(stream_ref stream) const { end_use(stream, device()); }
  void end_use(stream_ref stream, int device) const;

  /// Waits on the host for the work queued on stream(), also where that is another thread's.
  void synchronize() const;

  /// Contents are kept. Nothing has changed if it throws. `stream` becomes stream().
  void reserve(std::size_t capacity, stream_ref stream);
  void resize(std::size_t size, stream_ref stream);
  void shrink_to_fit(stream_ref stream);

  /// Copies into, or out of, the first bytes of the buffer; the other side is host or device memory. The caller keeps
  /// within size(). The stream of copy_from becomes stream(); that of copy_to and prefetch does not.
  void copy_from(const void* source, std::size_t bytes, stream_ref stream);
  void copy_to(void* target, std::size_t bytes, stream_ref stream) const;

  /// Moves the contents to a device, or to host_location, where the memory can move at all (driver/memory.hpp).
  void prefetch(int location, stream_ref stream) const;

  /// Frees the memory in the order of stream(). An empty buffer is left, which can be used again.
  void close() noexcept;

  /// Gives an empty buffer memory that can be had at once (memory_resource::allocate_at_once), uninitialised; false,
  /// and it is still empty, otherwise.
  bool open_at_once(std::size_t bytes) noexcept;

  /// As close, or false where that would have to wait (memory_resource::deallocate_at_once).
  bool close_at_once() noexcept;

  /// Hands the memory over to the caller, who frees capacity() bytes, asked before, of alignment() to resource(). As
  /// after close().
  void* release() noexcept;

 private:
  /// Memory of another size, with the contents.
  void reallocate(std::size_t capacity, stream_ref stream);

  /// `stream` comes after stream(), and becomes it.
  void move_to(stream_ref stream);

  std::shared_ptr<memory_resource> resource_;
  kept_stream stream_;
  std::size_t alignment_ = default_alignment;
  void* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
