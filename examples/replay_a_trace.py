"""Replay recorded allocations on two resources, and compare what each holds of the device.

The trace is the one that comes with cenote; any file that the logging adaptor of cenote or RMM wrote will do. Run it
with ``python replay_a_trace.py [trace.csv]`` on a GPU of 16 GB or more, or plan for a card that you do not have:
``CENOTE_CUDA_DRIVER=sim CENOTE_SIM=memory=80GiB python replay_a_trace.py``.
"""

import sys

import cenote
from cenote import trace
from cenote.logs.replay import replay

events = trace.read(sys.argv[1] if len(sys.argv) > 1 else trace.example())
print(f"{len(events):,} events, at most {trace.bytes_in_use(events).max():,} bytes in use")

for specification in ("pool", "async"):
    resource = cenote.mr.from_spec(specification)
    result = replay(events, resource)
    print(f"{specification:<22} holds {resource.state().held:>14,} bytes; {result.allocations:,} allocations")
