// torch.OutOfMemoryError, thrown without linking PyTorch.
#pragma once

#include <string>

namespace cenote::torch {

/// Throws what PyTorch turns into torch.OutOfMemoryError, a RuntimeError, with this text; a std::runtime_error, which
/// it turns into RuntimeError, where this PyTorch does not export what that takes.
[[noreturn]] void throw_out_of_memory(const std::string& text);

}  // namespace cenote::torch
