// RMM's exceptions. What cenote throws is told in them (detail/translated.hpp).
#pragma once

#include <new>
#include <rmm/detail/export.hpp>
#include <stdexcept>
#include <string>

RMM_NAMESPACE_BEGIN

struct logic_error : std::logic_error {
  using std::logic_error::logic_error;
};

struct cuda_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class bad_alloc : public std::bad_alloc {
 public:
  bad_alloc(const char* message) : bad_alloc(std::string(message)) {}
  bad_alloc(const std::string& message) : what_("std::bad_alloc: " + message) {}
  [[nodiscard]] const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

class out_of_memory : public bad_alloc {
 public:
  out_of_memory(const char* message) : out_of_memory(std::string(message)) {}
  out_of_memory(const std::string& message) : bad_alloc("out_of_memory: " + message) {}
};

class out_of_range : public std::out_of_range {
  using std::out_of_range::out_of_range;
};

class invalid_argument : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

RMM_NAMESPACE_END
