// Marks what libcenote.so shows to programs. All other names of the core are hidden in it.
//
//     namespace CENOTE_EXPORT cenote {       a header for programs: everything that it declares is shown
//     inline namespace v1 {
//
//     CENOTE_EXPORT void f();                a header of the inside: this function is shown, as an inline function of a
//                                            header for programs, the Python package, or a test of what
//                                            the library promises (tests/cpp/conformance) calls it
//
// The inline namespace is a part of each symbol's name. Its number is CENOTE_SOVERSION (version.h), so that a program
// cannot be linked with a library that has other classes of the same names.
#pragma once

#define CENOTE_EXPORT [[gnu::visibility("default")]]
