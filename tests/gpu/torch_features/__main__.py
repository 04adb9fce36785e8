from __future__ import annotations

import sys

from .running import run_all, run_here
from .serving import serve

if sys.argv[1:] == ["serve"]:
    if (wanted := serve()) is not None:
        run_here(*wanted)
else:
    allocator, *names = sys.argv[1:]
    if len(names) == 1:
        run_here(allocator, names[0])
    else:
        sys.exit(1 if run_all(allocator, names) else 0)
