"""Reads one YAML document into a pydantic model: safely, and with every mistake at once, each with its line.

PyYAML's safe loader is narrowed further: no tags beyond plain YAML, no aliases or anchors (an alias bomb is a few lines
long), no duplicate keys, at most `MAX_BYTES`. Numbers and dates arrive as YAML reads them; the models are strict about
the rest. Knows nothing of runs or features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from batchscore.errors import Problem, Refused
from batchscore.spelling import did_you_mean

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NUMBER: Final = 64  # characters
Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]
_OPENS: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map")
)
_NUMBERS: Final = frozenset(("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"))
# What PyYAML raises for a text that is none of its tag: a KeyError for a bool, an AttributeError for a timestamp, and so on.
_UNREADABLE: Final = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError)


class _Document:
    """A YAML document as plain values, and the line of every node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Place, int] = {(): 1}
        self.problems: list[Problem] = []

    def problem(self, line: int, what: str, remedy: str = "") -> None:
        self.problems.append(Problem(where=f"{self.name}:{line}", what=what, remedy=remedy))

    def line_of(self, place: Place) -> int:
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def value(self, node: yaml.Node, place: Place, loader: yaml.SafeLoader) -> Any:
        self.lines[place] = node.start_mark.line + 1
        if node.tag not in _TAGS:
            self.problem(node.start_mark.line + 1, f"the tag {node.tag!r} is not allowed", "write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, loader)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*place, index), loader) for index, child in enumerate(node.value)]
        try:
            _refuse_odd_number(node)
            return loader.construct_object(node)
        except _UNREADABLE:
            self.problem(node.start_mark.line + 1, "this value cannot be read", "quote it if it is meant as text")
            return None

    def _mapping(self, node: yaml.MappingNode, place: Place, loader: yaml.SafeLoader) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self.problem(line, "a key must be plain text", "write the keys out")
                continue
            key = key_node.value
            if key in mapping:
                self.problem(line, f"the key {key!r} stands here a second time", "keep one of the two")
                continue
            mapping[key] = self.value(value_node, (*place, key), loader)
            self.lines[(*place, key)] = line
        return mapping


def _refuse_odd_number(node: yaml.Node) -> None:
    """Raise ValueError for a number too long to be meant, or to base 60 (``12:30``): reading it takes quadratic time."""
    if node.tag in _NUMBERS and (len(node.value) > MAX_NUMBER or ":" in node.value):
        raise ValueError


class Mistake(NamedTuple):
    """What a model's own ``check`` finds: where in the document, what, and what mends it."""

    place: Place
    what: str
    remedy: str


Check = Callable[[Model], Iterable[Mistake]]


def read_document(path: Path, model: type[Model], *, check: Check[Model] | None = None) -> Model:
    """The file at ``path`` as a ``model``; ``check`` looks for mistakes between its parts.

    Raises:
        Refused: ``file_missing``, or ``spec_invalid`` with every mistake found.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Refused("spec_invalid", f"the file is larger than {MAX_BYTES} bytes", where=path.name)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused("file_missing", f"cannot be read: {error.strerror}", where=str(path), remedy="check the path") from None
    except UnicodeDecodeError:
        raise Refused("spec_invalid", "the file is not UTF-8 text", where=path.name, remedy="save it as UTF-8") from None
    return parse_document(text, model, name=path.name, check=check)


def parse_document(text: str, model: type[Model], *, name: str, check: Check[Model] | None = None) -> Model:
    """YAML text as a ``model``; ``name`` stands in messages as the file's name.

    Raises:
        Refused: ``spec_invalid`` with every mistake found, each as ``name:line``.
    """
    document = _Document(name)
    values = _values(text, document)
    try:
        result = model.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            document.problems.append(_explain(mistake, model, document))
        raise _refused(document) from None
    for found in check(result) if check else ():
        where = f"{name}:{document.line_of(_known_place(found.place, document))}"
        what = f"{'.'.join(map(str, found.place))}: {found.what}"
        document.problems.append(Problem(where=where, what=what, remedy=found.remedy))
    if document.problems:
        raise _refused(document)
    return result


def _refused(document: _Document) -> Refused:
    """All problems found, in the order of their lines."""
    in_order = sorted(set(document.problems), key=lambda problem: (int(problem.where.rsplit(":", 1)[1]), problem.what))
    count = len(in_order)
    return Refused("spec_invalid", f"{count} mistake{'s' if count > 1 else ''}", where=document.name, problems=tuple(in_order))


def _values(text: str, document: _Document) -> Any:
    try:
        depth = 0
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)):
                document.problem(token.start_mark.line + 1, "anchors and aliases are not allowed", "write the value out")
                return {}
            if depth > MAX_DEPTH:
                document.problem(token.start_mark.line + 1, "nested too deeply", f"nothing needs more than {MAX_DEPTH} levels")
                return {}
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "is not YAML"
        document.problem(mark.line + 1 if mark else 1, f"not YAML: {what}", "check indentation and quotes")
        return {}
    return {} if node is None else document.value(node, (), loader)


def _explain(mistake: Any, model: type[BaseModel], document: _Document) -> Problem:
    place = tuple(part for part in mistake["loc"] if (isinstance(part, int) or not part.startswith(("function-", "tagged-"))))
    known = _known_place(place, document)
    where = f"{document.name}:{document.line_of(known)}"
    name = ".".join(str(part) for part in place) or "document"
    if mistake["type"] == "extra_forbidden":
        meant = did_you_mean(str(place[-1]), _names(model), otherwise="remove it")
        return Problem(where=where, what=f"{name}: unknown key", remedy=meant)
    if mistake["type"] == "missing":
        return Problem(where=where, what=f"{name}: is missing", remedy="add it")
    what = str(mistake["msg"]).removeprefix("Value error, ")
    what, _, remedy = what.partition(" → ")
    return Problem(where=where, what=f"{name}: {what}", remedy=remedy)


def _known_place(place: Place, document: _Document) -> Place:
    """``place`` without the parts pydantic adds for unions, so that it points into the text."""
    known: Place = ()
    for part in place:
        if (*known, part) in document.lines:
            known = (*known, part)
    return known


def _names(model: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    pending, seen = [model], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, field in current.model_fields.items():
            names.add(field.alias or name)
            pending.extend(_models_in(field.annotation))
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
