"""A text in the host's memory, from which tests fill buffers."""

from __future__ import annotations

import numpy as np

TEXT = b"the water is the same"
HOST = np.frombuffer(TEXT, dtype="u1")
ADDRESS = int(HOST.ctypes.data)
