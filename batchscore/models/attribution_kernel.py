"""Machine code that adds up contributions from an `Attribution`: for each tree and row, what every leaf gives.

XGBoost adds leaf by leaf, at every split first what lies on the row's side of it, so that is the order here; a tree's sums begin
at 0 and are added to the row's. The sums of the features on the way down are held in one register, a lane for each level: a leaf
is one vector addition, and a sum goes to memory when its split is left. All splits of a tree are decided first, each for `ROWS`
rows at once. The code depends on no model.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import ir

from batchscore.models.attribution import Attribution
from batchscore.models.contract import Matrix
from batchscore.models.machine_code import BYTE, FLOAT, INT, LONG, Writer, callable_at, compiled, long

_OF_ATTRIBUTION: Final[dict[str, Any]] = {
    "child": INT,
    "feature": INT,
    "cut": FLOAT,
    "missing_right": BYTE,
    "first_entry": LONG,
    "slot": INT,
    "n_codes": INT,
    "first_code": LONG,
    "codes": BYTE,
    "entries": FLOAT,
    "root": LONG,
    "first_slot": LONG,
    "slot_feature": INT,
}
_ARRAYS: Final = _OF_ATTRIBUTION | {"columns": FLOAT, "totals": FLOAT, "sums": FLOAT, "answers": LONG}
ROWS: Final = 64  # whose answers at a split are the bits of one integer
_AT_ONCE: Final = 64 * ROWS  # rows whose features are turned into columns together
_OF_ROWS: Final = ir.VectorType(FLOAT, ROWS)
_compiling: Final = threading.Lock()


def contributions(attribution: Attribution, matrix: Matrix, base_margin: np.float32) -> Matrix:
    """TreeSHAP of rows, float32 (n, F + 1), the bias last. ``matrix``: float32 (n, F), NaN where missing. Releases the GIL.

    Raises:
        ValueError: the matrix is another.
    """
    width = attribution.n_features
    if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] != width:
        raise ValueError(f"the kernel reads float32 (n, {width})")
    with _compiling:
        run = _compiled(attribution.lanes)
    totals = np.zeros((len(matrix), width + 1), np.float32)
    totals[:, -1] = attribution.bias + base_margin
    sums = np.empty(int(np.diff(attribution.first_slot).max()) + 1, np.float32)
    answers = np.empty(int(np.diff(attribution.root).max()), np.uint64)
    fixed = [getattr(attribution, name).ctypes.data for name in _OF_ATTRIBUTION]
    for first in range(0, len(matrix), _AT_ONCE):
        part = matrix[first : first + _AT_ONCE]
        columns = np.full((width, -(-len(part) // ROWS) * ROWS), np.nan, np.float32)
        columns[:, : len(part)] = part.T
        pointers = [array.ctypes.data for array in (columns, totals[first:], sums, answers)]
        run(*fixed, *pointers, len(attribution.root) - 1, len(part), width, columns.shape[1])
    return totals


@cache
def _compiled(lanes: int) -> Callable[..., None]:
    kernel = _Kernel(lanes)
    run: Callable[..., None] = callable_at(compiled(kernel.module, speed_level=3), len(_ARRAYS), *[ctypes.c_int64] * 4)
    return run


class _Kernel(Writer):
    """The module for trees of at most ``lanes`` levels."""

    def __init__(self, lanes: int) -> None:
        super().__init__("contributions", _ARRAYS, dict.fromkeys(("n_trees", "n_rows", "n_features", "column_length"), LONG))
        self.lanes = lanes
        self.held = ir.VectorType(FLOAT, lanes)
        n_rows = self.given["n_rows"]
        with self.loop(self.given["n_trees"]) as tree, self.loop(self.b.sdiv(self.given["column_length"], long(ROWS))) as block:
            first_row = self.b.mul(block, long(ROWS))
            self._answer(tree, first_row)
            left = self.b.sub(n_rows, first_row)
            with self.loop(self.b.select(self.b.icmp_signed("<", left, long(ROWS)), left, long(ROWS))) as row:
                self.row = row
                self._row(tree, self.b.add(first_row, row))
        self.b.ret_void()

    # Which way rows go.

    def _answer(self, tree: Any, first_row: Any) -> None:
        """Of each node of a tree, which rows of a block go right at it: bit i for the i-th."""
        first_node = self.at("root", tree)
        with self.loop(self.b.sub(self.at("root", self.b.add(tree, long(1))), first_node)) as place:
            node = self.b.add(first_node, place)
            column = self.b.mul(self.b.sext(self.at("feature", node), LONG), self.given["column_length"])
            start = self.b.gep(self.given["columns"], [self.b.add(column, first_row)])
            values = self.vector(start, _OF_ROWS)
            cuts = self.splat(self.at("cut", node), _OF_ROWS)
            reached = self.b.bitcast(self.b.fcmp_unordered(">=", values, cuts), LONG)
            missing = self.b.bitcast(self.b.fcmp_unordered("uno", values, values), LONG)
            there = self.b.gep(self.given["answers"], [place])
            self.b.store(reached, there)
            n_codes = self.at("n_codes", node)
            with self.b.if_then(self.b.icmp_signed("!=", n_codes, ir.Constant(INT, 0)), likely=False):
                self._look_up(node, start, n_codes, there)
            instead = self.b.select(self.b.trunc(self.at("missing_right", node), ir.IntType(1)), missing, long(0))
            known = self.b.and_(self.b.load(there, typ=LONG), self.b.not_(missing))
            self.b.store(self.b.or_(known, instead), there)

    def _look_up(self, node: Any, start: Any, n_codes: Any, there: Any) -> None:
        """The answers at a split on categories: yes for those listed; what is none goes left."""
        self.b.store(long(0), there)
        with self.loop(long(ROWS)) as row:
            value = self.b.load(self.b.gep(start, [row]), typ=FLOAT)
            is_code = self.b.and_(
                self.b.fcmp_ordered(">=", value, ir.Constant(FLOAT, 0.0)),
                self.b.fcmp_ordered("<", value, self.b.sitofp(n_codes, FLOAT)),
            )
            code = self.b.fptosi(self.b.select(is_code, value, ir.Constant(FLOAT, 0.0)), LONG)
            listed = self.at("codes", self.b.add(self.at("first_code", node), code))
            right = self.b.and_(is_code, self.b.trunc(listed, ir.IntType(1)))
            answer = self.b.shl(self.b.zext(right, LONG), row)
            self.b.store(self.b.or_(self.b.load(there, typ=LONG), answer), there)

    # What they get.

    def _row(self, tree: Any, row: Any) -> None:
        """Add a tree's sums to a row's."""
        self.first_node, first_slot = self.at("root", tree), self.at("first_slot", tree)
        n_slots = self.b.sub(self.at("first_slot", self.b.add(tree, long(1))), first_slot)
        with self.loop(self.b.add(n_slots, long(1))) as slot:
            self.b.store(ir.Constant(FLOAT, 0.0), self.b.gep(self.given["sums"], [slot]))
        self._below(0, self.first_node, long(0), ir.Constant(self.held, [0.0] * self.lanes))
        first_total = self.b.mul(row, self.b.add(self.given["n_features"], long(1)))
        with self.loop(n_slots) as slot:
            feature = self.b.sext(self.at("slot_feature", self.b.add(first_slot, slot)), LONG)
            there = self.b.gep(self.given["totals"], [self.b.add(first_total, feature)])
            self.b.store(self.b.fadd(self.b.load(there, typ=FLOAT), self.at("sums", slot)), there)

    def _below(self, level: int, node: Any, pattern: Any, held: Any) -> Any:
        """The held sums after all leaves below ``node``."""
        leaf, split, after = (self.b.append_basic_block(f"{name}_{level}") for name in ("leaf", "split", "after"))
        child, first_entry = self.b.sext(self.at("child", node), LONG), self.at("first_entry", node)
        self.b.cbranch(self.b.icmp_signed("<", child, long(0)), leaf, split)
        self.b.position_at_end(leaf)
        of_leaf = self._add(held, self.b.add(first_entry, pattern))
        self.b.branch(after)
        self.b.position_at_end(split)
        of_split = self._split(level, node, pattern, held)
        end = self.b.block
        self.b.branch(after)
        self.b.position_at_end(after)
        found = self.b.phi(self.held)
        found.add_incoming(of_leaf, leaf)
        found.add_incoming(of_split, end)
        return found

    def _add(self, held: Any, entry: Any) -> Any:
        return self.b.fadd(held, self.vector(self.b.gep(self.given["entries"], [self.b.mul(entry, long(self.lanes))]), self.held))

    def _split(self, level: int, node: Any, pattern: Any, held: Any) -> Any:
        lane, place = ir.Constant(INT, level), self.b.sub(node, self.first_node)
        there = self.b.gep(self.given["sums"], [self.b.sext(self.at("slot", node), LONG)])
        held = self.b.insert_element(held, self.b.load(there, typ=FLOAT), lane)
        right = self.b.and_(self.b.lshr(self.at("answers", place), self.row), long(1))
        fork = self._fork(node, pattern, right, held) if level == self.lanes - 1 else None
        if fork is None:
            forks, sides, after = (self.b.append_basic_block(f"{name}_{level}") for name in ("forks", "sides", "done"))
            self.b.cbranch(self.b.icmp_signed(">=", self.at("first_entry", node), long(0)), forks, sides)
            self.b.position_at_end(forks)
            of_fork = self._fork(node, pattern, right, held)
            self.b.branch(after)
            self.b.position_at_end(sides)
            of_sides = self._sides(level, node, pattern, right, held)
            end = self.b.block
            self.b.branch(after)
            self.b.position_at_end(after)
            fork = self.b.phi(self.held)
            fork.add_incoming(of_fork, forks)
            fork.add_incoming(of_sides, end)
        self.b.store(self.b.extract_element(fork, lane), there)
        return fork

    def _fork(self, node: Any, pattern: Any, right: Any, held: Any) -> Any:
        """A split with nothing but two leaves: their entries stand side by side, in the order in which they are added."""
        turn = self.b.shl(self.b.or_(self.b.shl(pattern, long(1)), right), long(1))
        entry = self.b.add(self.at("first_entry", node), turn)
        return self._add(self._add(held, entry), self.b.add(entry, long(1)))

    def _sides(self, level: int, node: Any, pattern: Any, right: Any, held: Any) -> Any:
        """The row's own side, then the other."""
        child = self.b.sext(self.at("child", node), LONG)
        before, body, after = self.b.block, self.b.append_basic_block(f"side_{level}"), self.b.append_basic_block("both")
        self.b.branch(body)
        self.b.position_at_end(body)
        turn, carried = self.b.phi(LONG), self.b.phi(self.held)
        turn.add_incoming(long(0), before)
        carried.add_incoming(held, before)
        towards = self.b.shl(self.b.xor(turn, long(1)), long(level))
        side = self.b.add(child, self.b.xor(right, turn))
        found = self._below(level + 1, side, self.b.or_(pattern, towards), carried)
        following = self.b.add(turn, long(1))
        turn.add_incoming(following, self.b.block)
        carried.add_incoming(found, self.b.block)
        self.b.cbranch(self.b.icmp_signed("<", following, long(2)), body, after)
        self.b.position_at_end(after)
        return found
