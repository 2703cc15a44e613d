"""Loads and stores by memory address, for compiled kernels.

A packet header wants words at odd offsets, and an array that is passed about
between kernels costs numba a reference count at every step; an address costs
nothing. The caller has checked that the bytes are there, and keeps the array
alive.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,type-arg"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _loader(width: int, result: Any, swap: bool) -> Any:
    word = ir.IntType(width)

    @intrinsic
    def load(typing, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], word.as_pointer())
            value = builder.load(pointer)
            value.align = 1
            if swap:
                value = builder.bswap(value)
            return builder.zext(value, ir.IntType(64)) if width < 64 else value

        return result(types.uint64), codegen

    return load


u8 = _loader(8, types.int64, swap=False)
"""One byte, as int64."""
be16 = _loader(16, types.int64, swap=True)
"""Two bytes in network order, as int64."""
be32 = _loader(32, types.int64, swap=True)
"""Four bytes in network order, as int64."""
be64 = _loader(64, types.uint64, swap=True)
"""Eight bytes in network order, as uint64."""
le16 = _loader(16, types.int64, swap=False)
"""Two bytes, least significant first, as int64."""
le32 = _loader(32, types.int64, swap=False)
"""Four bytes, least significant first, as int64."""


@intrinsic
def get(typing, address, index):
    """Returns word `index` of the uint64 array at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(_word(builder, args))

    return types.uint64(types.uint64, types.int64), codegen


@intrinsic
def put(typing, address, index, value):
    """Sets word `index` of the uint64 array at an address."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], _word(builder, args))
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, types.uint64), codegen


def _word(builder: Any, args: Any) -> Any:
    return builder.gep(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), [args[1]])


@intrinsic
def prefetch(typing, address):
    """Asks the processor to bring the cache line at an address near, for writing."""

    def codegen(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [byte],
            ir.FunctionType(ir.VoidType(), [byte, word, word, word]),
        )
        pointer = builder.inttoptr(args[0], byte)
        builder.call(function, [pointer, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen
