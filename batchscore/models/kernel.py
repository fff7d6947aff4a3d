"""Machine code that scores a `Forest`: written as LLVM IR, compiled for this processor by llvmlite.

For each block of rows: bin every feature once, then for each tree in order decide *all* nodes of its top for many rows at a
time (compare bytes, then select, from the bottom up, so that no row ever branches), walk what hangs below, and add the leaves.
Leaves are added in float32 in the order of trees, starting from the base margin: the very sums that XGBoost makes.

The code has two forms, which differ in no bit. The *narrow* one, for any processor, decides `LANES` rows at once and looks
each row's leaf up. The *wide* one, for AVX-512, decides all rows of a block, so that a node's column and cut are fetched once
for them, and keeps a tree's leaves in registers, where a permutation finds those of `LEAVES` rows: twice as fast (measured).

The code depends on no model: models are data. All vectors are written out, and LLVM is told to make none of its own (it would
gather, which is slower here). Compiling takes a fifth of a second, once a process; that is why none of it is kept on disk,
where somebody could change it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import ir

from batchscore.models.contract import Matrix
from batchscore.models.forest import FANOUT, MAX_LEVELS, ROWS, SPAN, TOP_DEPTH, Forest
from batchscore.models.machine_code import BYTE, FLOAT, INT, LONG, SHORT, Writer, callable_at, compiled, has_registers, long

LANES: Final = 32  # rows decided at once: one AVX2 register of bytes
LEAVES: Final = 16  # that one AVX-512 register holds
_ALIGN: Final = 64
_WIDE_NEEDS: Final = ("avx512f", "avx512bw")

_CUTS, _OF_LEAVES, _PLACES = ir.VectorType(FLOAT, FANOUT), ir.VectorType(FLOAT, LEAVES), ir.VectorType(INT, LEAVES)
_MISSING: Final = -1  # among counts of cuts
_compiling: Final = threading.Lock()


def score_margins(forest: Forest, matrix: Matrix, base_margin: np.float32, *, wide: bool | None = None) -> Matrix:
    """Margins of rows, float32 (n,). ``matrix``: float32 (n, F), C-contiguous, NaN where missing. Releases the GIL.

    ``wide``: which form of the code; by default the wide one where the processor has its registers.

    Raises:
        ValueError: the matrix is another, or lacks a feature that the forest uses: the kernel would read beyond it.
    """
    n_used = int(forest.feature.max(initial=-1)) + 1
    if forest.feature.min(initial=0) < 0:
        raise ValueError("the forest uses a feature before the first")
    if matrix.dtype != np.float32 or matrix.ndim != 2 or not matrix.flags.c_contiguous or matrix.shape[1] < n_used:
        raise ValueError(f"the kernel reads float32 (n, at least {n_used}), C-contiguous")
    with _compiling:
        run = _compiled(has_wide_registers() if wide is None else wide)
    margins = np.empty(len(matrix), np.float32)
    bins = _aligned(max(1, len(forest.column_base)) * ROWS)
    arrays = [getattr(forest, name) for name in _OF_FOREST]
    pointers = [array.ctypes.data for array in (*arrays, matrix, margins, bins)]
    run(*pointers, len(forest.feature), len(forest.depth), *matrix.shape, float(base_margin))
    return margins


def compile_ahead() -> None:
    """Make the machine code now rather than with the first margins."""
    with _compiling:
        _compiled(has_wide_registers())


def has_wide_registers() -> bool:
    """Whether this processor can run the wide form."""
    return has_registers(*_WIDE_NEEDS)


def _aligned(n_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    held = np.zeros(n_bytes + _ALIGN, np.uint8)
    first = -held.ctypes.data % _ALIGN
    return held[first : first + n_bytes]


# Element type of every array the kernel is given, in the order in which it is.
_OF_FOREST: Final = tuple(field.name for field in fields(Forest))
_OF_BYTES, _OF_FLOATS = {"column_missing", "node_cut", "below_cut"}, {"cuts", "exit_value", "below_value"}
_OF_LONGS: Final = {"table", "first_node", "first_exit"}
_ELEMENTS: Final[dict[str, Any]] = {
    name: BYTE if name in _OF_BYTES else FLOAT if name in _OF_FLOATS else LONG if name in _OF_LONGS else INT
    for name in _OF_FOREST
} | {"matrix": FLOAT, "margins": FLOAT, "bins": BYTE}


@cache
def _compiled(wide: bool) -> Callable[..., None]:  # noqa: FBT001 (the key of a cache)
    """The kernel as a function of pointers and sizes."""
    # Of the wide form, optimising makes scoring 4 % faster, and takes as long as scoring some ten million rows.
    address = compiled(_Kernel(wide=wide).module, speed_level=0 if wide else 3)
    run: Callable[..., None] = callable_at(address, len(_ELEMENTS), *[ctypes.c_int64] * 4, ctypes.c_float)
    return run


class _Kernel(Writer):
    """Builds the module."""

    def __init__(self, *, wide: bool) -> None:
        sizes = {"n_features": LONG, "n_trees": LONG, "n_rows": LONG, "row_length": LONG, "base_margin": FLOAT}
        super().__init__("score", _ELEMENTS, sizes)
        self.wide = wide
        self.lanes = ROWS if wide else LANES
        self.bytes, self.shorts = ir.VectorType(BYTE, self.lanes), ir.VectorType(SHORT, self.lanes)
        of_two = ir.FunctionType(_OF_LEAVES, [_OF_LEAVES, _PLACES, _OF_LEAVES])
        self.permuted = ir.Function(self.module, of_two, name="llvm.x86.avx512.vpermi2var.ps.512") if wide else None
        self.counts = self._buffer(SHORT)
        self.exits = self._buffer(BYTE)
        self.nodes = self._buffer(INT)
        self.sums = self._buffer(FLOAT)
        self._blocks()
        self.b.ret_void()

    # What a kernel is made of.

    def _buffer(self, kind: Any) -> Any:
        held = self.b.alloca(kind, ROWS)
        held.align = _ALIGN
        return held

    def _by_case(self, value: Any, cases: range, build: Callable[[int], None]) -> None:
        """What ``build`` writes for the case that ``value`` (int32) is."""
        after = self.b.append_basic_block("after")
        chosen = self.b.switch(value, after)
        for case in cases:
            block = self.b.append_basic_block(f"case_{case}")
            chosen.add_case(ir.Constant(INT, case), block)
            self.b.position_at_end(block)
            build(case)
            self.b.branch(after)
        self.b.position_at_end(after)

    def _blocks(self) -> None:
        n_rows = self.given["n_rows"]
        n_blocks = self.b.sdiv(self.b.add(n_rows, long(ROWS - 1)), long(ROWS))
        with self.loop(n_blocks) as block:
            first = self.b.mul(block, long(ROWS))
            left = self.b.sub(n_rows, first)
            n = self.b.select(self.b.icmp_signed("<", left, long(ROWS)), left, long(ROWS))
            self._bin(first, n)
            with self.loop(long(ROWS)) as row:
                self.b.store(self.given["base_margin"], self.b.gep(self.sums, [row]))
            with self.loop(self.given["n_trees"]) as tree:
                self._tree(tree)
            with self.loop(n) as row:
                total = self.b.load(self.b.gep(self.sums, [row]), typ=FLOAT)
                self.b.store(total, self.b.gep(self.given["margins"], [self.b.add(first, row)]))

    # Bins.

    def _bin(self, first: Any, n: Any) -> None:
        with self.loop(self.given["n_features"]) as use:
            feature = self.b.zext(self.at("feature", use), LONG)
            table = self.b.gep(self.given["cuts"], [self.at("table", use)])

            def counted(n_levels: int) -> None:
                with self.loop(n) as row:
                    place = self.b.add(self.b.mul(self.b.add(first, row), self.given["row_length"]), feature)
                    count = self._count(self.at("matrix", place), table, n_levels)
                    self.b.store(count, self.b.gep(self.counts, [row]))

            self._by_case(self.at("n_levels", use), range(1, MAX_LEVELS + 1), counted)
            first_column = self.b.zext(self.at("first_column", use), LONG)
            end = self.b.zext(self.at("first_column", self.b.add(use, long(1))), LONG)
            with self.loop(self.b.sub(end, first_column)) as column:
                self._fill(self.b.add(first_column, column))

    def _count(self, value: Any, table: Any, n_levels: int) -> Any:
        """How many cuts ``value`` has reached: at each level, count those of `FANOUT` that it has. `_MISSING` for NaN."""
        values = self.splat(value, _CUTS)
        found, first_of_level = long(0), 0
        for level in range(n_levels):
            found = self.b.mul(found, long(FANOUT))
            cuts = self.vector(self.b.gep(table, [self.b.add(found, long(first_of_level))]), _CUTS)
            reached = self.b.bitcast(self.b.fcmp_ordered("<=", cuts, values), ir.IntType(FANOUT))
            found = self.b.add(found, self.b.zext(self.b.ctpop(reached), LONG))
            first_of_level += FANOUT ** (level + 1)
        missing = self.b.fcmp_unordered("uno", value, value)
        return self.b.select(missing, ir.Constant(SHORT, _MISSING), self.b.trunc(found, SHORT))

    def _fill(self, column: Any) -> None:
        """A column's bytes from the counts: what is beyond its cuts, clipped; a missing value as the column has it."""
        base = self.splat(self.b.trunc(self.at("column_base", column), SHORT), self.shorts)
        instead = self.splat(self.at("column_missing", column), self.bytes)
        least, most, missing = (self._all(self.shorts, value) for value in (0, SPAN, _MISSING))
        with self.loop(long(ROWS // self.lanes)) as part:
            first_row = self.b.mul(part, long(self.lanes))
            counts = self.vector(self.b.gep(self.counts, [first_row]), self.shorts)
            beyond = self.b.sub(counts, base)
            beyond = self.b.select(self.b.icmp_signed(">", beyond, least), beyond, least)
            beyond = self.b.select(self.b.icmp_signed("<", beyond, most), beyond, most)
            bins = self.b.select(self.b.icmp_signed("==", counts, missing), instead, self.b.trunc(beyond, self.bytes))
            place = self.b.add(self.b.mul(column, long(ROWS)), first_row)
            self.b.store(bins, self.b.bitcast(self.b.gep(self.given["bins"], [place]), self.bytes.as_pointer()), align=LANES)

    # Trees.

    def _tree(self, tree: Any) -> None:
        depth, n_below = self.at("depth", tree), self.b.sext(self.at("n_below", tree), LONG)
        node, first_exit = self.at("first_node", tree), self.at("first_exit", tree)
        self._by_case(depth, range(1, TOP_DEPTH + 1), lambda levels: self._top(node, levels))
        with self.b.if_else(self.b.icmp_signed("==", n_below, long(0))) as (whole, deep):
            with whole:
                if self.wide:
                    self._by_case(depth, range(1, TOP_DEPTH + 1), lambda levels: self._add_permuted(first_exit, levels))
                else:
                    self._add(lambda row: self.at("exit_value", self._exit(first_exit, row)))
            with deep:
                self._walk(first_exit, n_below)
                self._add(lambda row: self.at("below_value", self._node(row)))

    def _top(self, first_node: Any, levels: int) -> None:
        """Which way out of a complete top each row of the block takes."""
        with self.loop(long(ROWS // self.lanes)) as part:
            first_row = self.b.mul(part, long(self.lanes))
            found = self._decided(first_node, first_row, levels, 0, 0)
            there = self.b.bitcast(self.b.gep(self.exits, [first_row]), self.bytes.as_pointer())
            self.b.store(found, there, align=1)

    def _decided(self, first_node: Any, first_row: Any, levels: int, level: int, place: int) -> Any:
        """The exits below the ``place``-th node of ``level``, for `LANES` rows: its right side's where its answer is yes."""
        if level == levels:
            return self._all(self.bytes, place)
        at = self.b.add(first_node, long((1 << level) - 1 + place))
        offset = self.b.add(self.b.zext(self.at("node_column", at), LONG), first_row)
        there = self.b.bitcast(self.b.gep(self.given["bins"], [offset]), self.bytes.as_pointer())
        bins = self.b.load(there, typ=self.bytes, align=LANES)
        yes = self.b.icmp_unsigned(">", bins, self.splat(self.at("node_cut", at), self.bytes))
        left = self._decided(first_node, first_row, levels, level + 1, 2 * place)
        right = self._decided(first_node, first_row, levels, level + 1, 2 * place + 1)
        return self.b.select(yes, right, left)

    def _walk(self, first_exit: Any, n_below: Any) -> None:
        """Each row goes down the linked nodes, all rows one level at a time; at a leaf it stays."""
        with self.loop(long(ROWS)) as row:
            self.b.store(self.at("exit_node", self._exit(first_exit, row)), self.b.gep(self.nodes, [row]))
        with self.loop(n_below), self.loop(long(ROWS)) as row:
            node = self._node(row)
            offset = self.b.add(self.b.zext(self.at("below_column", node), LONG), row)
            yes = self.b.icmp_unsigned(">", self.at("bins", offset), self.at("below_cut", node))
            following = self.b.add(self.at("below_next", node), self.b.zext(yes, INT))
            self.b.store(following, self.b.gep(self.nodes, [row]))

    def _add(self, leaf: Callable[[Any], Any]) -> None:
        with self.loop(long(ROWS)) as row:
            there = self.b.gep(self.sums, [row])
            self.b.store(self.b.fadd(self.b.load(there, typ=FLOAT), leaf(row)), there)

    def _add_permuted(self, first_exit: Any, levels: int) -> None:
        """Add to each row the value of its way out of a top, `LEAVES` rows at a time."""
        first = self.b.gep(self.given["exit_value"], [first_exit])
        held = [self._leaves(self.b.gep(first, [long(place)]), 1 << levels) for place in range(0, 1 << levels, LEAVES)]
        with self.loop(long(ROWS // LEAVES)) as part:
            row = self.b.mul(part, long(LEAVES))
            ways = self.vector(self.b.gep(self.exits, [row]), ir.VectorType(BYTE, LEAVES))
            ways = self.b.zext(ways, _PLACES)
            pairs = zip(held[::2], held[1::2] or held, strict=True)  # of a pair, the permutation reads the five last bits
            found = [self.b.call(self.permuted, [low, ways, high]) for low, high in pairs]
            value = found[0]
            if len(found) > 1:
                value = self.b.select(self.b.icmp_unsigned("<", ways, self._all(_PLACES, 2 * LEAVES)), *found)
            there = self.b.bitcast(self.b.gep(self.sums, [row]), _OF_LEAVES.as_pointer())
            self.b.store(self.b.fadd(self.b.load(there, typ=_OF_LEAVES, align=_ALIGN), value), there, align=_ALIGN)

    def _leaves(self, start: Any, n: int) -> Any:
        """`LEAVES` values from ``start`` on; of a table of only ``n``, those, and anything behind."""
        if n >= LEAVES:
            return self.vector(start, _OF_LEAVES)
        few = self.vector(start, ir.VectorType(FLOAT, n))
        places = ir.Constant(_PLACES, [place % n for place in range(LEAVES)])
        return self.b.shuffle_vector(few, ir.Constant(few.type, ir.Undefined), places)

    def _exit(self, first_exit: Any, row: Any) -> Any:
        return self.b.add(first_exit, self.b.zext(self.b.load(self.b.gep(self.exits, [row]), typ=BYTE), LONG))

    def _node(self, row: Any) -> Any:
        return self.b.zext(self.b.load(self.b.gep(self.nodes, [row]), typ=INT), LONG)

    def _all(self, kind: Any, value: int) -> Any:
        """A vector of one value that is known now; written out it would be a text as long as the vector."""
        return self.splat(ir.Constant(kind.element, value), kind)
