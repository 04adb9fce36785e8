// Marks the functions that each allocation or free runs: the linker lays them side by side. What they seldom call is
// marked as cold: neither inlined, nor a reason to save registers before it is called.
//
// Between two allocations a framework runs code of its own, on hundreds of pages, and the processor remembers where
// some hundred pages lie. So a call costs by the number of pages that its code is spread over.
#pragma once

#define CENOTE_HOT [[gnu::hot]]
#define CENOTE_COLD [[gnu::cold, gnu::noinline]]
