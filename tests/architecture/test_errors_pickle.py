"""Attempts raise their errors on workers; the driver must receive each one whole."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from batchscore.errors import BatchscoreError, Problem


def kinds(root: type[BatchscoreError] = BatchscoreError) -> Iterator[type[BatchscoreError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_error_arrives_from_a_worker_as_it_was_raised(kind: type[BatchscoreError]) -> None:
    sent = kind(
        "column_type",
        "float where an integer is declared",
        where="part-0.parquet, column id",
        remedy="declare id_cast",
        problems=(Problem(where="line 3", what="unknown key", remedy="drop it"), Problem(where="line 9", what="empty")),
    )
    received = pickle.loads(pickle.dumps(sent))

    assert type(received) is kind
    assert vars(received) == vars(sent)
    assert received.args == sent.args
    assert str(received) == str(sent)
    assert (received.code, received.exit_code) == (sent.code, sent.exit_code)
