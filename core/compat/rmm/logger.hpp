// The default logger: cenote's log.
#pragma once

#include <memory>
#include <rapids_logger/logger.hpp>
#include <rmm/detail/export.hpp>
#include <rmm/logger_macros.hpp>
#include <string>

#include "cenote/ground/log.hpp"

RMM_NAMESPACE_BEGIN

/// Messages go to cenote's log, at the same level.
inline rapids_logger::sink_ptr default_sink() {
  return std::make_shared<rapids_logger::sink>(
      [](rapids_logger::level_enum level, const std::string& message) {
        cenote::log(static_cast<cenote::log_level>(level), message);
      },
      [] { cenote::flush_log(); });
}

/// cenote's log has a form of its own.
inline std::string default_pattern() { return "[%6t][%H:%M:%S:%f][%-6l] %v"; }

RMM_EXPORT inline rapids_logger::logger& default_logger() {
  static rapids_logger::logger made("RMM", std::vector<rapids_logger::sink_ptr>{default_sink()});
  return made;
}

RMM_NAMESPACE_END
