// Adaptors watch a pool: what a part of a program allocates, who leaves memory behind, and a log to replay.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "cenote/cenote.hpp"

namespace {

void print(const char* what, const cenote::allocation_counters& counted) {
  std::printf("%-22s %3lld allocations, %9lld bytes in all, %9lld at the peak, %7lld now\n", what,
              static_cast<long long>(counted.count.total), static_cast<long long>(counted.bytes.total),
              static_cast<long long>(counted.bytes.peak), static_cast<long long>(counted.bytes.current));
}

}  // namespace

int main() {
  // logging | tracking | statistics | pool | virtual
  const auto log = std::filesystem::temp_directory_path() / "cenote_example.csv";
  auto pool = std::make_shared<cenote::pool_memory_resource>(std::make_shared<cenote::virtual_memory_resource>());
  auto statistics = std::make_shared<cenote::statistics_resource_adaptor>(pool);
  auto tracking = std::make_shared<cenote::tracking_resource_adaptor>(statistics);
  auto logging = std::make_shared<cenote::logging_resource_adaptor>(tracking, log.string());
  cenote::set_current_device_resource(logging);

  cenote::cuda_stream stream;
  cenote::device_buffer model(10 * cenote::MiB, stream);

  // What one part of the program does, on this thread.
  statistics->push_counters();
  for (int batch = 0; batch < 100; ++batch) cenote::device_buffer input(1 * cenote::MiB, stream);
  print("a hundred batches:", statistics->pop_counters());
  print("everything:", statistics->counters());
  std::printf("the pool took %llu pages from the driver\n",
              static_cast<unsigned long long>(pool->counters().upstream_allocations));

  // What is still there, and how much of it.
  for (const cenote::outstanding_allocation& left : tracking->outstanding_allocations()) {
    std::printf("not freed yet: allocation %llu, %zu bytes\n", static_cast<unsigned long long>(left.number),
                left.bytes);
  }

  // One line of CSV for each allocation and free; `cenote replay` makes them again on any resource.
  logging->flush();
  std::ifstream lines(logging->file_name());
  const auto count = std::count(std::istreambuf_iterator<char>(lines), {}, '\n');
  std::printf("%s has %lld lines\n", std::filesystem::path(logging->file_name()).filename().c_str(),
              static_cast<long long>(count));
}
