// Calls of cenote's whose errors are told in RMM's exceptions.
#pragma once

#include <rmm/error.hpp>

#include "cenote/ground/error.hpp"

RMM_NAMESPACE_BEGIN
namespace detail {

/// Calls, of something that allocates: want of memory is rmm::out_of_memory, a failure of the driver rmm::bad_alloc.
template <class Call>
decltype(auto) allocating(Call&& call) {
  try {
    return call();
  } catch (const cenote::out_of_memory& error) {
    throw out_of_memory(error.what());
  } catch (const cenote::cuda_error& error) {
    throw bad_alloc(error.what());
  }
}

/// Calls, of something that does not: a failure of the driver is rmm::cuda_error.
template <class Call>
decltype(auto) translated(Call&& call) {
  try {
    return call();
  } catch (const cenote::cuda_error& error) {
    throw cuda_error(error.what());
  }
}

}  // namespace detail
RMM_NAMESPACE_END
