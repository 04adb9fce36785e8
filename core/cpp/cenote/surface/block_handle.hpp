// What the text of a shared block says (block_offer.hpp): whose it is, where to ask for it, and what it is.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>

#include "cenote/surface/endpoint.hpp"

namespace cenote::inline v1 {

struct block_handle {
  std::string endpoint;  ///< name of the owner's
  pid_t owner;
  endpoint_request request;
  std::string device;  ///< its UUID
  std::size_t bytes;
};

std::string spell(const block_handle& handle);

/// Throws std::invalid_argument.
block_handle parse_block_handle(const std::string& text);

}  // namespace cenote::inline v1
