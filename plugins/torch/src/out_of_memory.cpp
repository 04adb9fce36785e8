// How it works. PyTorch maps c10::OutOfMemoryError, which derives from c10::Error and adds no member, to its Python
// exception by the C++ type. That type lives in libraries that the running PyTorch has loaded, and whose version is not
// known when this is compiled. So the three symbols that make up the type are looked up at run time: the constructor of
// the base, the type information, and the virtual table. The base is constructed in an exception's memory, the virtual
// table is set, and it is thrown under its own type.
//
// Source: tried with PyTorch 2.11 on an H100. The symbols' names are those of the Itanium C++ ABI.
#include "out_of_memory.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <typeinfo>

namespace cenote::torch {
namespace {

/// c10::SourceLocation, passed by value.
struct source_location {
  const char* function;
  const char* file;
  std::uint32_t line;
};

using construct_error = void (*)(void* error, source_location, std::string text);
using destroy_error = void (*)(void* error);

/// More than any c10::Error has had: about 200 bytes in PyTorch 2.11.
constexpr std::size_t room_for_an_error = 1024;

/// In a virtual table the functions start after the offset to the top and the type information; the first one is the
/// destructor.
constexpr std::size_t functions_in_table = 2 * sizeof(void*);

void* symbol_of_loaded(const char* library, const char* name) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) return nullptr;
  void* const symbol = dlsym(handle, name);
  dlclose(handle);  // it was loaded before, and stays so
  return symbol;
}

struct error_type {
  construct_error construct = reinterpret_cast<construct_error>(symbol_of_loaded(
      "libc10.so", "_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"));
  std::type_info* type =
      static_cast<std::type_info*>(symbol_of_loaded("libc10_cuda.so", "_ZTIN3c1016OutOfMemoryErrorE"));
  std::byte* table = static_cast<std::byte*>(symbol_of_loaded("libc10_cuda.so", "_ZTVN3c1016OutOfMemoryErrorE"));

  bool is_known() const { return construct != nullptr && type != nullptr && table != nullptr; }
};

}  // namespace

void throw_out_of_memory(const std::string& text) {
  static const error_type known;
  if (!known.is_known()) throw std::runtime_error(text);

  void* const error = abi::__cxa_allocate_exception(room_for_an_error);
  try {
    known.construct(error, {"cenote_torch_allocate", "cenote", 0}, text);
  } catch (...) {
    abi::__cxa_free_exception(error);
    throw;
  }
  const void* const functions = known.table + functions_in_table;
  std::memcpy(error, &functions, sizeof(functions));
  destroy_error destroy = nullptr;
  std::memcpy(&destroy, functions, sizeof(destroy));
  abi::__cxa_throw(error, known.type, destroy);
}

}  // namespace cenote::torch
