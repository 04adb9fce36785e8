"""Other libraries' names for what cenote does: `cenote.compat.as_rmm`, `torch_memory_saver` and `vllm` beside it."""
