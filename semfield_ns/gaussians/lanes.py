"""Eight float32 numbers at once in numba code: a vector type of LLVM, which is AVX, NEON or whatever the processor has.

    result = multiply_add(load(values, 8 * i), splat(factor), result)          # in an njit function
    store(values, 8 * i, select(result > splat(0.0), result, splat(0.0)))

Operations are done as written, so that two kernels that compute the same get the same bits. `multiply_add` rounds once
where the processor can.
Compiled kernels are cached by the file that they are in: change `kernels.py` too when something here changes.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8
_REAL = ir.VectorType(ir.FloatType(), WIDTH)
_INTEGER = ir.VectorType(ir.IntType(32), WIDTH)
_BOOL = ir.VectorType(ir.IntType(1), WIDTH)


class Lanes(types.Type):
    """Eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


class Mask(types.Type):
    """Eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


LANES, MASK = Lanes(), Mask()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _REAL)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _BOOL)


def _constant(*values: float) -> ir.Constant:
    return ir.Constant(_REAL, [float(v) for v in (values * WIDTH if len(values) == 1 else values)])


def _spread(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    first = builder.insert_element(ir.Constant(_REAL, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(_INTEGER, [0] * WIDTH)
    return builder.shuffle_vector(first, ir.Constant(_REAL, ir.Undefined), zeros)


@intrinsic
def splat(typingctx: Any, scalar: types.Type) -> Any:
    """The same number eight times."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value = context.cast(builder, args[0], signature.args[0], types.float32)
        return _spread(builder, value)

    return LANES(scalar), code


def _pointer(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(array.data, [index]), _REAL.as_pointer())


@intrinsic
def load(typingctx: Any, array: types.Type, index: types.Type) -> Any:
    """Eight numbers of a contiguous float32 array from an index on, which is not checked."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(_pointer(context, builder, signature, args), align=4)

    return LANES(array, index), code


@intrinsic
def store(typingctx: Any, array: types.Type, index: types.Type, value: types.Type) -> Any:
    """Writes eight numbers to a contiguous float32 array from an index on, which is not checked."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(args[2], _pointer(context, builder, signature, args), align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), code


@intrinsic
def columns(typingctx: Any) -> Any:
    """Column of each lane in a block of 4x2 pixels."""
    return LANES(), lambda context, builder, signature, args: _constant(0, 1, 2, 3, 0, 1, 2, 3)


@intrinsic
def rows(typingctx: Any) -> Any:
    """Row of each lane in a block of 4x2 pixels."""
    return LANES(), lambda context, builder, signature, args: _constant(0, 0, 0, 0, 1, 1, 1, 1)


def _elementwise(name: str, result: types.Type) -> Callable[..., Any]:
    @intrinsic
    def of_two(typingctx: Any, a: types.Type, b: types.Type) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            if name in ("<", "<=", ">", ">="):
                return builder.fcmp_ordered(name, *args)
            if name == "and":
                return builder.and_(*args)
            return getattr(builder, name)(*args)

        return result(a, b), code

    return of_two


def _operator(symbol: Callable[..., Any], name: str, kind: type[types.Type], result: types.Type) -> None:
    of_two = _elementwise(name, result)

    @overload(symbol, strict=False)
    def typed(a: Any, b: Any) -> Any:
        if isinstance(a, kind) and isinstance(b, kind):
            return lambda a, b: of_two(a, b)
        return None


_operator(operator.add, "fadd", Lanes, LANES)
_operator(operator.sub, "fsub", Lanes, LANES)
_operator(operator.mul, "fmul", Lanes, LANES)
_operator(operator.truediv, "fdiv", Lanes, LANES)
_operator(operator.lt, "<", Lanes, MASK)
_operator(operator.le, "<=", Lanes, MASK)
_operator(operator.gt, ">", Lanes, MASK)
_operator(operator.ge, ">=", Lanes, MASK)
_operator(operator.and_, "and", Mask, MASK)


def _fused(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_REAL, (_REAL, _REAL, _REAL))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32"), (a, b, c))


@intrinsic
def multiply_add(typingctx: Any, a: types.Type, b: types.Type, c: types.Type) -> Any:
    """A * b + c."""
    return LANES(a, b, c), lambda context, builder, signature, args: _fused(builder, *args)


@intrinsic
def select(typingctx: Any, mask: types.Type, yes: types.Type, no: types.Type) -> Any:
    """Lanes of `yes` where the mask holds, of `no` elsewhere."""
    return LANES(mask, yes, no), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def smaller(typingctx: Any, a: types.Type, b: types.Type) -> Any:
    """The smaller number of each lane; that of b if one is not a number."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return LANES(a, b), code


@intrinsic
def larger(typingctx: Any, a: types.Type, b: types.Type) -> Any:
    """The larger number of each lane; that of b if one is not a number."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return LANES(a, b), code


@intrinsic
def holds_anywhere(typingctx: Any, mask: types.Type) -> Any:
    """Whether the mask holds in any lane."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(WIDTH), 0))

    return types.boolean(mask), code


@intrinsic
def total(typingctx: Any, values: types.Type) -> Any:
    """The sum of the eight lanes, always in the same order."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        values = args[0]
        undefined = ir.Constant(_REAL, ir.Undefined)
        for step in (4, 2, 1):
            order = ir.Constant(_INTEGER, [(i + step) % WIDTH for i in range(WIDTH)])
            values = builder.fadd(values, builder.shuffle_vector(values, undefined, order))
        return builder.extract_element(values, ir.Constant(ir.IntType(32), 0))

    return types.float32(values), code


@intrinsic
def exponential(typingctx: Any, values: types.Type) -> Any:
    """Exp of numbers from -80 to 80, to float32's precision (the polynomial is that of Cephes' expf)."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        # Adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits.
        magic = _constant(12582912.0)
        shifted = _fused(builder, args[0], _constant(1.4426950408889634), magic)
        power = builder.fsub(shifted, magic)
        rest = _fused(builder, power, _constant(-0.693359375), args[0])
        rest = _fused(builder, power, _constant(2.12194440e-4), rest)
        series = _constant(1.9875691500e-4)
        for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            series = _fused(builder, series, rest, _constant(coefficient))
        series = _fused(builder, series, builder.fmul(rest, rest), builder.fadd(rest, _constant(1.0)))
        exponent = builder.shl(builder.bitcast(shifted, _INTEGER), ir.Constant(_INTEGER, [23] * WIDTH))
        return builder.bitcast(builder.add(builder.bitcast(series, _INTEGER), exponent), _REAL)

    return LANES(values), code


@intrinsic
def lowest_bit(typingctx: Any, bits: types.Type) -> Any:
    """The number of zeros below the lowest one of an unsigned 32-bit integer that is not 0."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        found = builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.zext(found, ir.IntType(64))

    return types.int64(types.uint32), code


@intrinsic
def take_ticket(typingctx: Any, counter: types.Type) -> Any:
    """The first number of a contiguous int64 array, which is then one higher; each thread gets another one."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, cgutils.intp_t(1), "monotonic")

    return types.int64(counter), code
