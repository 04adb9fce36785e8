#include "graph_pages.hpp"

#include <c10/util/Exception.h>

#include <vector>

namespace cenote::torch {
namespace {

thread_local graph_pages::set_number joined_set = 0;

}  // namespace

graph_pages::set_number graph_pages::join(set_number set) { return std::exchange(joined_set, set); }

graph_pages::set_number graph_pages::joined() { return joined_set; }

cenote_page_set* graph_pages::of(set_number set, c10::DeviceIndex device) {
  const std::lock_guard lock(mutex_);
  cenote_page_set*& pages = sets_[{set, device}];
  if (pages == nullptr) pages = core().make_page_set(device);
  TORCH_CHECK(pages != nullptr, "graphs cannot share pages: ", core().last_error());
  return pages;
}

template <class Filter>
std::size_t graph_pages::trim_those(Filter&& is_wanted, bool waits) {
  std::vector<cenote_page_set*> wanted;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, pages] : sets_) {
      if (pages != nullptr && is_wanted(key)) wanted.push_back(pages);
    }
  }
  std::size_t bytes = 0;
  for (cenote_page_set* const each : wanted) {
    const std::int64_t left = core().trim_page_set(each, waits ? 1 : 0);
    if (left > 0) bytes += static_cast<std::size_t>(left);
  }
  return bytes;
}

std::size_t graph_pages::bytes(set_number set) {
  return trim_those([=](const auto& key) { return key.first == set; }, false);
}

std::size_t graph_pages::trim(c10::DeviceIndex device, bool waits) {
  return trim_those([=](const auto& key) { return key.second == device; }, waits);
}

}  // namespace cenote::torch
