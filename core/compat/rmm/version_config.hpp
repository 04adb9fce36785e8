// The version of RMM whose names these headers have.
#pragma once

#define RMM_VERSION_MAJOR 26
#define RMM_VERSION_MINOR 10
#define RMM_VERSION_PATCH 0
#define RMM_VERSION "26.10.0"

#define RMM_VERSION_EQ(major, minor, patch) \
  (RMM_VERSION_MAJOR == (major) && RMM_VERSION_MINOR == (minor) && RMM_VERSION_PATCH == (patch))
#define RMM_VERSION_GT(major, minor, patch) \
  (RMM_VERSION_MAJOR > (major) ||           \
   (RMM_VERSION_MAJOR == (major) &&         \
    (RMM_VERSION_MINOR > (minor) || (RMM_VERSION_MINOR == (minor) && RMM_VERSION_PATCH > (patch)))))
#define RMM_VERSION_LT(major, minor, patch) \
  (!RMM_VERSION_EQ(major, minor, patch) && !RMM_VERSION_GT(major, minor, patch))
