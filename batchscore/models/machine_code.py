"""What kernels are written with: LLVM IR from Python, and its compilation for this processor by llvmlite.

Floats are added and multiplied one by one in the order written: no instruction here carries a flag that lets LLVM do otherwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from llvmlite import binding, ir

BYTE, SHORT, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_engines: Final[list[Any]] = []


class Writer:
    """Writes a module of one function, which returns nothing. ``b`` is where the next instruction goes.

    ``arrays`` name the pointers that the function is given, with the types of their elements, and ``values`` what it is given
    after them; all are in ``given``. No two arrays overlap.
    """

    def __init__(self, name: str, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self.module = ir.Module(name=name)
        self._elements = arrays
        pointers = [kind.as_pointer() for kind in arrays.values()]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [*pointers, *values.values()]), name=name)
        self.given: dict[str, Any] = dict(zip((*arrays, *values), function.args, strict=True))
        for array in arrays:
            self.given[array].add_attribute("noalias")
        self.b = ir.IRBuilder(function.append_basic_block("entry"))

    def at(self, name: str, place: Any) -> Any:
        """Load ``name[place]``."""
        return self.b.load(self.b.gep(self.given[name], [place]), typ=self._elements[name])

    def vector(self, start: Any, kind: Any) -> Any:
        """Load a vector from the elements from ``start`` on."""
        return self.b.load(self.b.bitcast(start, kind.as_pointer()), typ=kind, align=1)

    def splat(self, value: Any, kind: Any) -> Any:
        """A vector of ``kind`` that is ``value`` in every lane."""
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(nothing, value, ir.Constant(INT, 0))
        return self.b.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT, kind.count), None))

    @contextmanager
    def loop(self, n: Any) -> Iterator[Any]:
        """The block once for each i of 0 to n - 1 (none when n is 0)."""
        head, body, after = (self.b.append_basic_block(name) for name in ("head", "body", "after"))
        before = self.b.block
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(LONG)
        i.add_incoming(long(0), before)
        self.b.cbranch(self.b.icmp_signed("<", i, n), body, after)
        self.b.position_at_end(body)
        yield i
        i.add_incoming(self.b.add(i, long(1)), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)


def long(value: int) -> Any:
    """A constant int64."""
    return ir.Constant(LONG, value)


def compiled(module: Any, *, speed_level: int) -> int:
    """The address of a module's one function (it has the module's name), for as long as the process lives.

    Raises:
        RuntimeError, OSError: LLVM can make no code for this processor, or the system lets nobody make any.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
    )
    tuning = binding.create_pipeline_tuning_options(speed_level=speed_level)
    tuning.loop_vectorization = False
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(parsed, passes)
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    _engines.append(engine)  # the code lives as long as its engine
    address: int = engine.get_function_address(module.name)
    return address


def callable_at(address: int, n_arrays: int, *values: Any) -> Any:
    """The function of ``n_arrays`` pointers and ``values`` (ctypes) at an address; calling it releases the GIL."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arrays, *values)(address)


@cache
def has_registers(*names: str) -> bool:
    """Whether this processor has all of those features, as LLVM names them."""
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in names)
