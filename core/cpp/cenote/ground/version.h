// The version of cenote, for programs in C and C++ to compare with, and the only place where it is written: CMake and
// pyproject.toml read it from here.
#ifndef CENOTE_VERSION_H
#define CENOTE_VERSION_H

#define CENOTE_VERSION_MAJOR 0
#define CENOTE_VERSION_MINOR 2
#define CENOTE_VERSION_PATCH 0

/// One number to compare: 1 000 000 * major + 1 000 * minor + patch.
#define CENOTE_VERSION (CENOTE_VERSION_MAJOR * 1000000 + CENOTE_VERSION_MINOR * 1000 + CENOTE_VERSION_PATCH)

/// Raised by a release whose C++ classes are not those of older programs: the number in `libcenote.so.1`, and of the
/// inline namespace (export.hpp). The C interface has a number of its own, CENOTE_ABI_VERSION.
#define CENOTE_SOVERSION 1

#endif
