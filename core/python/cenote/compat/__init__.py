"""Other libraries' names for what cenote does: `cenote.compat.as_rmm`."""
