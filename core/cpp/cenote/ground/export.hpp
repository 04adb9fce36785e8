// Marks what libcenote.so shows to programs. All other names of the core are hidden in it.
//
//     namespace CENOTE_EXPORT cenote {       a header for programs: its classes are shown,
//     inline namespace v1 {
//     CENOTE_EXPORT void f();                and its functions, each marked: Clang hides one that is defined in a
//                                            namespace that is not marked
//
// In a header of the inside a function is marked that is called by an inline function of a header for programs, by the
// Python package, by a test of what the library promises, or by the benchmarks.
//
// The inline namespace is a part of each symbol's name. Its number is CENOTE_SOVERSION (version.h), so that a program
// cannot be linked with a library that has other classes of the same names.
#pragma once

#define CENOTE_EXPORT [[gnu::visibility("default")]]
