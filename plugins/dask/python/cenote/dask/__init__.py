"""Dask on cenote: each worker's memory from one resource, spilled when it runs out, and seen by the scheduler.

::

    from dask.distributed import Client
    from cenote.dask import CenotePlugin

    client = Client(cluster)
    client.register_plugin(CenotePlugin("pool:max=80%"))

or, without a change to the program::

    DASK_DISTRIBUTED__CENOTE__RESOURCE="pool:max=80%" dask worker --preload cenote.dask …

`CenotePlugin` installs the resource, `Spiller` evicts values of the worker when there is no memory,
`specification_from_dask_cuda` takes the ``rmm_*`` options of dask-cuda over, and importing the module registers how
Dask sends a `cenote.DeviceBuffer` and counts its bytes.
"""

from __future__ import annotations

try:
    import distributed  # noqa: F401  all of the modules below need it
except ImportError as error:
    raise ImportError(
        f"cenote.dask needs Dask, which cannot be imported ({error}): pip install 'cenote[dask]'"
    ) from error

from cenote.dask import serialization  # noqa: F401  registers
from cenote.dask.metrics import figures
from cenote.dask.options import specification_from_dask_cuda
from cenote.dask.plugin import CenotePlugin, dask_setup
from cenote.dask.spill import Spiller

__all__ = ["CenotePlugin", "Spiller", "dask_setup", "figures", "specification_from_dask_cuda"]
