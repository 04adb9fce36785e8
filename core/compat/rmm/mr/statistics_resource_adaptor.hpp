// Counts bytes and allocations.
#pragma once

#include <cstdint>
#include <rmm/detail/handle.hpp>
#include <utility>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"

RMM_NAMESPACE_BEGIN
namespace mr {

class statistics_resource_adaptor
    : public detail::handle<cenote::statistics_resource_adaptor, cuda::mr::device_accessible> {
 public:
  struct counter {
    std::int64_t value{0};
    std::int64_t peak{0};
    std::int64_t total{0};
  };

  explicit statistics_resource_adaptor(detail::any_device_resource upstream)
      : handle(of_upstream{}, std::move(upstream)) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  [[nodiscard]] counter get_bytes_counter() const noexcept { return of(over()->counters().bytes); }
  [[nodiscard]] counter get_allocations_counter() const noexcept { return of(over()->counters().count); }
  /// The counters of bytes and of allocations before.
  std::pair<counter, counter> push_counters() { return both(over()->push_counters()); }
  /// The same; std::out_of_range for the last ones.
  std::pair<counter, counter> pop_counters() { return both(over()->pop_counters()); }

 private:
  static counter of(const cenote::counter& counted) noexcept { return {counted.current, counted.peak, counted.total}; }
  static std::pair<counter, counter> both(const cenote::allocation_counters& counted) noexcept {
    return {of(counted.bytes), of(counted.count)};
  }
};

static_assert(cuda::mr::resource_with<statistics_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
