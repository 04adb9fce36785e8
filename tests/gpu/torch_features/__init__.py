"""Things that PyTorch users do with memory: with PyTorch's own allocator, and with cenote.

python -m torch_features ALLOCATOR FEATURE      ALLOCATOR: native or cenote
python -m torch_features ALLOCATOR [FEATURE …]  all of them, several at a time, as a table
"""

from . import compiled, figures, graphs, limits, pools, programs, shared, snapshots, streams, ways
from .features import ALONE, FEATURES, OF_CENOTE
from .running import run_one

__all__ = [
    "ALONE",
    "FEATURES",
    "OF_CENOTE",
    "compiled",
    "figures",
    "graphs",
    "limits",
    "pools",
    "programs",
    "run_one",
    "shared",
    "snapshots",
    "streams",
    "ways",
]
