// The pages under a block, for another process: which they are, and a descriptor of each.
//
//        block             [ ............................ ]
//        pages        [          ][          ][          ]      sent whole: the block begins somewhere in the first
//
// Only pages that were made for it can be exported (page_properties::handles), as those of `pool | virtual` are.
//
// Threads: any. Cost: not measured.
#pragma once

#include <cstddef>
#include <vector>

#include "cenote/ground/file_descriptor.hpp"

namespace cenote::inline v1 {

struct page_place {
  const std::byte* address;
  std::size_t bytes;
};

/// In order of address; none where the memory is not made of pages.
std::vector<page_place> pages_under(const void* address, std::size_t bytes, int device);

/// Throws cuda_error; for a page that was not made for it as well.
file_descriptor export_page(const page_place& page, int device);

}  // namespace cenote::inline v1
