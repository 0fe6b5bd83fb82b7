"""A run on a Dask cluster: `bulk`. Extra `[dask]`."""

from __future__ import annotations

try:
    import distributed as _distributed
except ImportError as _error:
    raise ImportError("toapis_async.dask needs Dask: pip install 'toapis-async[dask]'") from _error

from toapis_async.dask.job import Bulk, bulk

del _distributed
__all__ = ["Bulk", "bulk"]
