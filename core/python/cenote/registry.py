"""Who holds how many bytes of the current resources, and what those are made from. `cenote.mr` gets and sets them."""

from cenote._core.clients import Client, Holding, Usage, sample_sites, usage
from cenote._core.public_names import publish
from cenote._core.registry import (
    default_specification,
    devices_with_resource,
    find_per_device_resource,
    registry_address,
    set_default_specification,
)
from cenote._core.tags import tag

__all__ = [
    "Client",
    "Holding",
    "Usage",
    "default_specification",
    "devices_with_resource",
    "find_per_device_resource",
    "registry_address",
    "sample_sites",
    "set_default_specification",
    "tag",
    "usage",
]

publish(globals())
