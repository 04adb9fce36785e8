// RMM's macros of messages; those below RMM_LOG_ACTIVE_LEVEL are compiled away.
#pragma once

#include <rapids_logger/log_levels.h>

#if !defined(RMM_LOG_ACTIVE_LEVEL)
#define RMM_LOG_ACTIVE_LEVEL RAPIDS_LOGGER_LOG_LEVEL_INFO
#endif

#define CENOTE_RMM_LOG(number, name, ...)                                      \
  do {                                                                         \
    if constexpr (RMM_LOG_ACTIVE_LEVEL <= (number)) {                          \
      rmm::default_logger().log(rapids_logger::level_enum::name, __VA_ARGS__); \
    }                                                                          \
  } while (false)

#define RMM_LOG_TRACE(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_TRACE, trace, __VA_ARGS__)
#define RMM_LOG_DEBUG(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_DEBUG, debug, __VA_ARGS__)
#define RMM_LOG_INFO(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_INFO, info, __VA_ARGS__)
#define RMM_LOG_WARN(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_WARN, warn, __VA_ARGS__)
#define RMM_LOG_ERROR(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_ERROR, error, __VA_ARGS__)
#define RMM_LOG_CRITICAL(...) CENOTE_RMM_LOG(RAPIDS_LOGGER_LOG_LEVEL_CRITICAL, critical, __VA_ARGS__)
