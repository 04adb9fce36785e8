#include "cenote/ground/call_stack.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "cenote/ground/bytes.hpp"

namespace cenote::inline v1 {
namespace {

constexpr const char* indentation = "    ";

/// The addresses of one loaded file.
struct loaded_file {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool holds(const void* address) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    return begin <= at && at < end;
  }
};

loaded_file file_of(const void* address) noexcept {
  struct search {
    const void* address;
    loaded_file found;
  } wanted{address, {}};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* argument) {
        auto& sought = *static_cast<search*>(argument);
        loaded_file file{UINTPTR_MAX, 0};
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          file.begin = std::min<std::uintptr_t>(file.begin, info->dlpi_addr + segment.p_vaddr);
          file.end = std::max<std::uintptr_t>(file.end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
        }
        if (!file.holds(sought.address)) return 0;
        sought.found = file;
        return 1;
      },
      &wanted);
  return wanted.found;
}

std::string demangled(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(symbol, nullptr, nullptr, &status),
                                                         &std::free);
  return status == 0 ? name.get() : symbol;
}

/// "namespace::function(int) (libfile.so+0x1234)": the offset is what addr2line takes.
std::string symbolised(const void* return_address) {
  const auto address = reinterpret_cast<std::uintptr_t>(return_address) - 1;  // inside the call, not after it
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(address), &info) == 0)
    return format_address(reinterpret_cast<const void*>(address));
  const std::string path = info.dli_fname != nullptr ? info.dli_fname : "?";
  const auto offset = address - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  const std::string where =
      path.substr(path.rfind('/') + 1) + "+" + format_address(reinterpret_cast<const void*>(offset));
  return info.dli_sname != nullptr ? demangled(info.dli_sname) + " (" + where + ")" : where;
}

}  // namespace

call_stack call_stack::capture(const interpreter& running) {
  static const loaded_file own = file_of(reinterpret_cast<const void*>(&file_of));
  call_stack stack;
  if (running.describe) stack.described_ = running.describe();
  std::array<void*, max_frames> frames{};
  const void* const* const all = frames.data();
  const void* const* end = all + backtrace(frames.data(), max_frames);
  const auto is_own = [](const void* frame) { return own.holds(frame); };
  const void* const* begin = std::find_if(all, end, is_own);  // a sanitizer may stand before them
  begin = std::find_if_not(begin, end, is_own);
  if (begin == end) begin = all;  // the whole program is one file
  if (!stack.described_.empty()) {
    stack.language_ = running.name;
    const loaded_file foreign = file_of(running.code);
    end = std::find_if(begin, end, [&](const void* frame) { return foreign.holds(frame); });
  }
  stack.frames_.assign(begin, end);
  return stack;
}

std::string call_stack::text() const {
  std::string text;
  if (!described_.empty()) {
    text += "  " + language_ + ", innermost last:\n" + indentation;
    for (std::size_t i = 0; i < described_.size(); ++i) {
      text += described_[i];
      if (described_[i] == '\n' && i + 1 < described_.size()) text += indentation;
    }
    if (text.back() != '\n') text += '\n';
  }
  if (!frames_.empty()) text += "  C++, innermost first:\n";
  for (const void* const frame : frames_) text += indentation + symbolised(frame) + "\n";
  return text;
}

}  // namespace cenote::inline v1
