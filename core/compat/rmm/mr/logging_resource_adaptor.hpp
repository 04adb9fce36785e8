// Writes each allocation and free as a line of comma-separated values.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <rmm/detail/handle.hpp>
#include <rmm/detail/logging_to_sinks.hpp>
#include <string>
#include <vector>

RMM_NAMESPACE_BEGIN
namespace mr {

class logging_resource_adaptor : public detail::handle<rmm::detail::logging_to_sinks, cuda::mr::device_accessible> {
 public:
  explicit logging_resource_adaptor(detail::any_device_resource upstream,
                                    const std::string& filename = get_default_filename(), bool auto_flush = false)
      : logging_resource_adaptor(std::move(upstream),
                                 {std::make_shared<rapids_logger::basic_file_sink_mt>(filename, true)}, auto_flush) {}
  logging_resource_adaptor(detail::any_device_resource upstream, std::ostream& stream, bool auto_flush = false)
      : logging_resource_adaptor(std::move(upstream), {std::make_shared<rapids_logger::ostream_sink_mt>(stream)},
                                 auto_flush) {}
  logging_resource_adaptor(detail::any_device_resource upstream, std::initializer_list<rapids_logger::sink_ptr> sinks,
                           bool auto_flush = false)
      : handle(of_upstream{}, std::move(upstream), std::vector<rapids_logger::sink_ptr>(sinks), auto_flush) {}

  [[nodiscard]] device_async_resource_ref get_upstream_resource() const noexcept { return upstream(); }
  void flush() { over()->flush(); }
  [[nodiscard]] std::string header() const { return rmm::detail::logging_to_sinks::header; }

  /// What RMM_LOG_FILE says; rmm::logic_error if it is not set.
  static std::string get_default_filename() {
    const char* const name = std::getenv("RMM_LOG_FILE");
    RMM_EXPECTS(name != nullptr, "RMM logging requested without an explicit file name, but RMM_LOG_FILE is unset");
    return name;
  }
};

static_assert(cuda::mr::resource_with<logging_resource_adaptor, cuda::mr::device_accessible>);

}  // namespace mr
RMM_NAMESPACE_END
