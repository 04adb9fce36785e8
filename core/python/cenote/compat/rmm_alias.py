"""How ``rmm`` comes to mean cenote: a finder that makes its modules from the table in `cenote.compat.rmm_names`.

A module of the alias holds nothing. A name is looked up in the table when it is first asked for, and only then is what
stands behind it imported, which may be a framework.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from cenote.compat.rmm_names import MODULES

__all__ = ["install"]


class _Alias(MetaPathFinder, Loader):
    """Finds and loads the modules of the table."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in MODULES)
        return ModuleSpec(fullname, self, origin="cenote.compat.as_rmm", is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        package, names = module.__name__, MODULES[module.__name__]
        children = [name.removeprefix(f"{package}.") for name in MODULES if name.startswith(f"{package}.")]

        def look_up(name: str) -> Any:
            if f"{package}.{name}" in MODULES:
                return importlib.import_module(f"{package}.{name}")
            if name not in names:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            home, _, original = names[name].partition(":")
            value = importlib.import_module(home)
            if original:
                value = getattr(value, original)
            setattr(module, name, value)
            return value

        public = [name for name in names if not name.startswith("_") or name.endswith("__")]
        module.__dict__.update(
            __doc__=f"{package}, as cenote has it: see `cenote.compat.as_rmm`.",
            __all__=public,
            __getattr__=look_up,
            __dir__=lambda: sorted({*vars(module), *names, *(child for child in children if "." not in child)}),
        )


_alias = _Alias()


def install() -> None:
    """Put the alias before everything that could find the real RMM; ImportError if that has been imported already."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "rmm" and getattr(module.__spec__, "loader", None) is not _alias:
            raise ImportError(
                f"the real RMM has been imported already ({getattr(module, '__file__', None) or name}), so that `rmm` "
                "cannot mean cenote any more: import cenote.compat.as_rmm before it, or run the program with "
                "`python -m cenote.compat.as_rmm`; or, to keep RMM and use cenote beside it, unset CENOTE_AS_RMM and "
                "import cenote alone"
            )
    if _alias not in sys.meta_path:
        sys.meta_path.insert(0, _alias)
