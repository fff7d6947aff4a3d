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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir

from batchscore.models.contract import Matrix
from batchscore.models.forest import FANOUT, MAX_LEVELS, ROWS, SPAN, TOP_DEPTH, Forest

LANES: Final = 32  # rows decided at once: one AVX2 register of bytes
LEAVES: Final = 16  # that one AVX-512 register holds
_ALIGN: Final = 64
_WIDE_NEEDS: Final = ("avx512f", "avx512bw")

_BYTE, _SHORT, _INT, _LONG, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_CUTS, _OF_LEAVES, _PLACES = ir.VectorType(_FLOAT, FANOUT), ir.VectorType(_FLOAT, LEAVES), ir.VectorType(_INT, LEAVES)
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


@cache
def has_wide_registers() -> bool:
    """Whether this processor can run the wide form."""
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in _WIDE_NEEDS)


def _aligned(n_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    held = np.zeros(n_bytes + _ALIGN, np.uint8)
    first = -held.ctypes.data % _ALIGN
    return held[first : first + n_bytes]


# Element type of every array the kernel is given, in the order in which it is.
_OF_FOREST: Final = tuple(field.name for field in fields(Forest))
_OF_BYTES, _OF_FLOATS = {"column_missing", "node_cut", "below_cut"}, {"cuts", "exit_value", "below_value"}
_OF_LONGS: Final = {"table", "first_node", "first_exit"}
_ELEMENTS: Final[dict[str, Any]] = {
    name: _BYTE if name in _OF_BYTES else _FLOAT if name in _OF_FLOATS else _LONG if name in _OF_LONGS else _INT
    for name in _OF_FOREST
} | {"matrix": _FLOAT, "margins": _FLOAT, "bins": _BYTE}


@cache
def _compiled(wide: bool) -> Callable[..., None]:  # noqa: FBT001 (the key of a cache)
    """The kernel as a function of pointers and sizes."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(str(_Kernel(wide=wide).module))
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
    )
    # Of the wide form, optimising makes scoring 4 % faster, and takes as long as scoring some ten million rows.
    tuning = binding.create_pipeline_tuning_options(speed_level=0 if wide else 3)
    tuning.loop_vectorization = False
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(_ELEMENTS), *[ctypes.c_int64] * 4, ctypes.c_float)
    run: Callable[..., None] = signature(engine.get_function_address("score"))
    _engines.append(engine)  # the code lives as long as its engine
    return run


_engines: Final[list[Any]] = []


class _Kernel:
    """Builds the module. ``self.b`` is where the next instruction goes."""

    def __init__(self, *, wide: bool) -> None:
        self.wide = wide
        self.lanes = ROWS if wide else LANES
        self.bytes, self.shorts = ir.VectorType(_BYTE, self.lanes), ir.VectorType(_SHORT, self.lanes)
        self.module = ir.Module(name="batchscore")
        sizes = {"n_features": _LONG, "n_trees": _LONG, "n_rows": _LONG, "row_length": _LONG, "base_margin": _FLOAT}
        pointers = [kind.as_pointer() for kind in _ELEMENTS.values()]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [*pointers, *sizes.values()]), name="score")
        self.given: dict[str, Any] = dict(zip((*_ELEMENTS, *sizes), function.args, strict=True))
        for name in _ELEMENTS:
            self.given[name].add_attribute("noalias")
        of_two = ir.FunctionType(_OF_LEAVES, [_OF_LEAVES, _PLACES, _OF_LEAVES])
        self.permuted = ir.Function(self.module, of_two, name="llvm.x86.avx512.vpermi2var.ps.512") if wide else None
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.counts = self._buffer(_SHORT)
        self.exits = self._buffer(_BYTE)
        self.nodes = self._buffer(_INT)
        self.sums = self._buffer(_FLOAT)
        self._blocks()
        self.b.ret_void()

    # What a kernel is made of.

    def at(self, name: str, place: Any) -> Any:
        """Load ``name[place]``."""
        return self.b.load(self.b.gep(self.given[name], [place]), typ=_ELEMENTS[name])

    def _buffer(self, kind: Any) -> Any:
        held = self.b.alloca(kind, ROWS)
        held.align = _ALIGN
        return held

    def _vector(self, start: Any, kind: Any) -> Any:
        return self.b.load(self.b.bitcast(start, kind.as_pointer()), typ=kind, align=1)

    def _by_case(self, value: Any, cases: range, build: Callable[[int], None]) -> None:
        """What ``build`` writes for the case that ``value`` (int32) is."""
        after = self.b.append_basic_block("after")
        chosen = self.b.switch(value, after)
        for case in cases:
            block = self.b.append_basic_block(f"case_{case}")
            chosen.add_case(ir.Constant(_INT, case), block)
            self.b.position_at_end(block)
            build(case)
            self.b.branch(after)
        self.b.position_at_end(after)

    @contextmanager
    def loop(self, n: Any) -> Iterator[Any]:
        """The block once for each i of 0 to n - 1 (none when n is 0)."""
        head, body, after = (self.b.append_basic_block(name) for name in ("head", "body", "after"))
        before = self.b.block
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(_LONG)
        i.add_incoming(_long(0), before)
        self.b.cbranch(self.b.icmp_signed("<", i, n), body, after)
        self.b.position_at_end(body)
        yield i
        i.add_incoming(self.b.add(i, _long(1)), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)

    def _blocks(self) -> None:
        n_rows = self.given["n_rows"]
        n_blocks = self.b.sdiv(self.b.add(n_rows, _long(ROWS - 1)), _long(ROWS))
        with self.loop(n_blocks) as block:
            first = self.b.mul(block, _long(ROWS))
            left = self.b.sub(n_rows, first)
            n = self.b.select(self.b.icmp_signed("<", left, _long(ROWS)), left, _long(ROWS))
            self._bin(first, n)
            with self.loop(_long(ROWS)) as row:
                self.b.store(self.given["base_margin"], self.b.gep(self.sums, [row]))
            with self.loop(self.given["n_trees"]) as tree:
                self._tree(tree)
            with self.loop(n) as row:
                total = self.b.load(self.b.gep(self.sums, [row]), typ=_FLOAT)
                self.b.store(total, self.b.gep(self.given["margins"], [self.b.add(first, row)]))

    # Bins.

    def _bin(self, first: Any, n: Any) -> None:
        with self.loop(self.given["n_features"]) as use:
            feature = self.b.zext(self.at("feature", use), _LONG)
            table = self.b.gep(self.given["cuts"], [self.at("table", use)])

            def counted(n_levels: int) -> None:
                with self.loop(n) as row:
                    place = self.b.add(self.b.mul(self.b.add(first, row), self.given["row_length"]), feature)
                    count = self._count(self.at("matrix", place), table, n_levels)
                    self.b.store(count, self.b.gep(self.counts, [row]))

            self._by_case(self.at("n_levels", use), range(1, MAX_LEVELS + 1), counted)
            first_column = self.b.zext(self.at("first_column", use), _LONG)
            end = self.b.zext(self.at("first_column", self.b.add(use, _long(1))), _LONG)
            with self.loop(self.b.sub(end, first_column)) as column:
                self._fill(self.b.add(first_column, column))

    def _count(self, value: Any, table: Any, n_levels: int) -> Any:
        """How many cuts ``value`` has reached: at each level, count those of `FANOUT` that it has. `_MISSING` for NaN."""
        values = self._splat(value, _CUTS)
        found, first_of_level = _long(0), 0
        for level in range(n_levels):
            found = self.b.mul(found, _long(FANOUT))
            cuts = self._vector(self.b.gep(table, [self.b.add(found, _long(first_of_level))]), _CUTS)
            reached = self.b.bitcast(self.b.fcmp_ordered("<=", cuts, values), ir.IntType(FANOUT))
            found = self.b.add(found, self.b.zext(self.b.ctpop(reached), _LONG))
            first_of_level += FANOUT ** (level + 1)
        missing = self.b.fcmp_unordered("uno", value, value)
        return self.b.select(missing, ir.Constant(_SHORT, _MISSING), self.b.trunc(found, _SHORT))

    def _fill(self, column: Any) -> None:
        """A column's bytes from the counts: what is beyond its cuts, clipped; a missing value as the column has it."""
        base = self._splat(self.b.trunc(self.at("column_base", column), _SHORT), self.shorts)
        instead = self._splat(self.at("column_missing", column), self.bytes)
        least, most, missing = (self._all(self.shorts, value) for value in (0, SPAN, _MISSING))
        with self.loop(_long(ROWS // self.lanes)) as part:
            first_row = self.b.mul(part, _long(self.lanes))
            counts = self._vector(self.b.gep(self.counts, [first_row]), self.shorts)
            beyond = self.b.sub(counts, base)
            beyond = self.b.select(self.b.icmp_signed(">", beyond, least), beyond, least)
            beyond = self.b.select(self.b.icmp_signed("<", beyond, most), beyond, most)
            bins = self.b.select(self.b.icmp_signed("==", counts, missing), instead, self.b.trunc(beyond, self.bytes))
            place = self.b.add(self.b.mul(column, _long(ROWS)), first_row)
            self.b.store(bins, self.b.bitcast(self.b.gep(self.given["bins"], [place]), self.bytes.as_pointer()), align=LANES)

    # Trees.

    def _tree(self, tree: Any) -> None:
        depth, n_below = self.at("depth", tree), self.b.sext(self.at("n_below", tree), _LONG)
        node, first_exit = self.at("first_node", tree), self.at("first_exit", tree)
        self._by_case(depth, range(1, TOP_DEPTH + 1), lambda levels: self._top(node, levels))
        with self.b.if_else(self.b.icmp_signed("==", n_below, _long(0))) as (whole, deep):
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
        with self.loop(_long(ROWS // self.lanes)) as part:
            first_row = self.b.mul(part, _long(self.lanes))
            found = self._decided(first_node, first_row, levels, 0, 0)
            there = self.b.bitcast(self.b.gep(self.exits, [first_row]), self.bytes.as_pointer())
            self.b.store(found, there, align=1)

    def _decided(self, first_node: Any, first_row: Any, levels: int, level: int, place: int) -> Any:
        """The exits below the ``place``-th node of ``level``, for `LANES` rows: its right side's where its answer is yes."""
        if level == levels:
            return self._all(self.bytes, place)
        at = self.b.add(first_node, _long((1 << level) - 1 + place))
        offset = self.b.add(self.b.zext(self.at("node_column", at), _LONG), first_row)
        there = self.b.bitcast(self.b.gep(self.given["bins"], [offset]), self.bytes.as_pointer())
        bins = self.b.load(there, typ=self.bytes, align=LANES)
        yes = self.b.icmp_unsigned(">", bins, self._splat(self.at("node_cut", at), self.bytes))
        left = self._decided(first_node, first_row, levels, level + 1, 2 * place)
        right = self._decided(first_node, first_row, levels, level + 1, 2 * place + 1)
        return self.b.select(yes, right, left)

    def _walk(self, first_exit: Any, n_below: Any) -> None:
        """Each row goes down the linked nodes, all rows one level at a time; at a leaf it stays."""
        with self.loop(_long(ROWS)) as row:
            self.b.store(self.at("exit_node", self._exit(first_exit, row)), self.b.gep(self.nodes, [row]))
        with self.loop(n_below), self.loop(_long(ROWS)) as row:
            node = self._node(row)
            offset = self.b.add(self.b.zext(self.at("below_column", node), _LONG), row)
            yes = self.b.icmp_unsigned(">", self.at("bins", offset), self.at("below_cut", node))
            following = self.b.add(self.at("below_next", node), self.b.zext(yes, _INT))
            self.b.store(following, self.b.gep(self.nodes, [row]))

    def _add(self, leaf: Callable[[Any], Any]) -> None:
        with self.loop(_long(ROWS)) as row:
            there = self.b.gep(self.sums, [row])
            self.b.store(self.b.fadd(self.b.load(there, typ=_FLOAT), leaf(row)), there)

    def _add_permuted(self, first_exit: Any, levels: int) -> None:
        """Add to each row the value of its way out of a top, `LEAVES` rows at a time."""
        first = self.b.gep(self.given["exit_value"], [first_exit])
        held = [self._leaves(self.b.gep(first, [_long(place)]), 1 << levels) for place in range(0, 1 << levels, LEAVES)]
        with self.loop(_long(ROWS // LEAVES)) as part:
            row = self.b.mul(part, _long(LEAVES))
            ways = self._vector(self.b.gep(self.exits, [row]), ir.VectorType(_BYTE, LEAVES))
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
            return self._vector(start, _OF_LEAVES)
        few = self._vector(start, ir.VectorType(_FLOAT, n))
        places = ir.Constant(_PLACES, [place % n for place in range(LEAVES)])
        return self.b.shuffle_vector(few, ir.Constant(few.type, ir.Undefined), places)

    def _exit(self, first_exit: Any, row: Any) -> Any:
        return self.b.add(first_exit, self.b.zext(self.b.load(self.b.gep(self.exits, [row]), typ=_BYTE), _LONG))

    def _node(self, row: Any) -> Any:
        return self.b.zext(self.b.load(self.b.gep(self.nodes, [row]), typ=_INT), _LONG)

    def _all(self, kind: Any, value: int) -> Any:
        """A vector of one value that is known now; written out it would be a text as long as the vector."""
        return self._splat(ir.Constant(kind.element, value), kind)

    def _splat(self, value: Any, kind: Any) -> Any:
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(nothing, value, ir.Constant(_INT, 0))
        return self.b.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT, kind.count), None))


def _long(value: int) -> Any:
    return ir.Constant(_LONG, value)
