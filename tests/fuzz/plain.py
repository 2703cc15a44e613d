"""Lets kernels run as Python, so that a search sees where they go."""

from __future__ import annotations

import ctypes
import sys
import types

_LOADS = {"u8": (1, "big"), "be16": (2, "big"), "be32": (4, "big"), "be64": (8, "big")}
_LOADS |= {"le16": (2, "little"), "le32": (4, "little")}


def install() -> None:
    """Puts loads by Python in the place of compiled ones; before any reader is imported."""
    from numba import config

    config.DISABLE_JIT = True
    assert "telemetry.loads" not in sys.modules
    loads = types.ModuleType("telemetry.loads")
    for name, (size, order) in _LOADS.items():
        setattr(loads, name, _loader(size, order))
    loads.get, loads.put, loads.prefetch = _get, _put, _prefetch  # type: ignore[attr-defined]
    sys.modules["telemetry.loads"] = loads


def _loader(size: int, order: str) -> types.FunctionType:
    import numpy as np

    def load(address: object) -> object:
        value = int.from_bytes(ctypes.string_at(int(address), size), order)  # type: ignore
        return np.uint64(value) if size == 8 else value

    return load


def _get(address: object, index: object) -> object:
    import numpy as np

    return np.uint64(ctypes.c_uint64.from_address(int(address) + 8 * int(index)).value)


def _put(address: object, index: object, value: object) -> None:
    ctypes.c_uint64.from_address(int(address) + 8 * int(index)).value = int(value) & (2**64 - 1)


def _prefetch(address: object) -> None:
    """Does nothing."""
