"""Reasons: exact, grouped, the largest few, in words; and nothing in a template or value is more than text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.errors import PartitionError
from batchscore.models.bundle import Manifest, ReasonTemplate
from batchscore.models.contract import Frame, Matrix, conform
from batchscore.models.golden import Golden
from batchscore.models.loading import load_scorer
from batchscore.models.reasons import MAX_REASONS, TOLERANCE, explain, in_words
from batchscore.models.scorer import Scorer
from batchscore.plan import Reference


class FixedScorer:
    """A scorer whose contributions are given: one row."""

    bundle_digest = "fixed"
    name = "fixed"
    n_fallbacks = 0
    explained_by = "fixed"

    def __init__(self, contributions: dict[str, tuple[float, str, str]], bias: float = 0.25) -> None:
        """``contributions``: feature → (contribution, code, sentence)."""
        self.names = tuple(contributions)
        self.row = np.array([[*(entry[0] for entry in contributions.values()), bias]], np.float32)
        reasons = {name: ReasonTemplate(code=code, sentence=sentence) for name, (_, code, sentence) in contributions.items()}
        features = tuple(SimpleNamespace(categories=()) for _ in self.names)
        self.manifest: Manifest = SimpleNamespace(names=self.names, features=features, reasons=reasons)  # type: ignore[assignment]

    @property
    def riders(self) -> Golden:
        raise NotImplementedError

    def margin(self, frame: Frame) -> Matrix:
        margins: Matrix = self.row.sum(axis=1, dtype=np.float64).astype(np.float32)
        return margins

    def score_of(self, margin: Matrix) -> Matrix:
        raise NotImplementedError

    def contributions(self, frame: Frame) -> Matrix:
        return self.row

    def explain(self, *values: float) -> list[tuple[str, str, float]]:
        frame = Frame(self.names, np.array([values], np.float32), np.zeros(1, np.bool_))
        return [(reason.code, reason.sentence, reason.contribution) for reason in explain(self, frame, self.margin(frame))[0]]


@pytest.fixture
def scorer(bundle: Path, pack: Callable[..., Reference]) -> Scorer:
    from batchscore.models.bundle import read_manifest

    return load_scorer(read_manifest(bundle).reference)


def test_contributions_of_a_real_model_add_up_and_rank_by_size(scorer: Scorer, make_rows: Callable[..., pa.Table]) -> None:
    frame = conform(make_rows(200, seed=5), scorer.names)
    margins = scorer.margin(frame)
    found = explain(scorer, frame, margins)
    contributions = scorer.contributions(frame)
    assert np.abs(contributions.sum(axis=1, dtype=np.float64) - margins).max() <= TOLERANCE
    for reasons, row in zip(found, contributions, strict=True):
        assert [abs(reason.contribution) for reason in reasons] == sorted(
            (abs(reason.contribution) for reason in reasons), reverse=True
        )
        volume = [reason.contribution for reason in reasons if reason.code == "volume"]
        assert volume in ([], [float(row[0].astype(np.float64) + row[1])])
    assert found == explain(scorer, frame, margins)


def test_features_of_one_code_are_summed_and_the_heaviest_speaks() -> None:
    found = FixedScorer(
        {"a": (0.5, "volume", "a {value}"), "b": (1.0, "volume", "b {value}"), "c": (-2.0, "age", "c {value}")}
    ).explain(1, 2, 3)
    assert found == [("age", "c 3", -2.0), ("volume", "b 2", 1.5)]


def test_the_largest_five_are_given_and_ties_go_by_code() -> None:
    scorer = FixedScorer({f"f{number}": (1.0 if number % 2 else -1.0, f"code{9 - number}", "s") for number in range(8)})
    codes = [code for code, _, _ in scorer.explain(*range(8))]
    assert codes == sorted(codes)
    assert len(codes) == MAX_REASONS


def test_features_without_contribution_and_codes_that_cancel_are_no_reasons() -> None:
    scorer = FixedScorer({"a": (0.0, "none", "s"), "b": (0.5, "both", "s"), "c": (-0.5, "both", "s"), "d": (0.25, "some", "s")})
    assert [code for code, _, _ in scorer.explain(1, 2, 3, 4)] == ["some"]


@pytest.mark.parametrize(
    "sentence",
    [
        "{value.__class__}",
        "{0}",
        "{value!r:>99999999}",
        "%s %(value)s",
        "${value}",
        "{{value}}",
        "{",
        "<script>{value}</script>",
        "\\1{value}",
    ],
)
def test_a_hostile_template_is_just_text(sentence: str) -> None:
    assert FixedScorer({"a": (1.0, "c", sentence)}).explain(7)[0][1] == sentence.replace("{value}", "7")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "unknown"),
        (0.0, "0"),
        (-0.0, "0"),
        (412.0, "412"),
        (1234567.0, "1,234,567"),
        (-3.0, "-3"),
        (float(np.float32(0.1)), "0.1"),
        (0.123456, "0.1235"),
        (1234.5678, "1,235"),
        (3e38, "3e+38"),
        (1e-40, "1e-40"),
    ],
)
def test_values_are_said_in_words(value: float, words: str) -> None:
    assert in_words(value) == words


def test_a_margin_that_differs_in_a_bit_is_a_mismatch(scorer: Scorer, make_rows: Callable[..., pa.Table]) -> None:
    frame = conform(make_rows(3), scorer.names)
    margins = scorer.margin(frame)
    margins[1] = np.nextafter(margins[1], np.float32(9))
    with pytest.raises(PartitionError, match="1 of 3 margins") as caught:
        explain(scorer, frame, margins)
    assert caught.value.reason == "margin_mismatch"


@pytest.mark.parametrize("error", [2 * TOLERANCE, np.nan])
def test_contributions_that_do_not_add_up_are_a_mismatch(error: float) -> None:
    class Wrong(FixedScorer):
        def contributions(self, frame: Frame) -> Any:
            return self.row + np.array([error, 0], np.float32)

    with pytest.raises(PartitionError, match="do not add up"):
        Wrong({"a": (1.0, "c", "s")}).explain(1)


def test_contributions_within_the_tolerance_are_taken() -> None:
    class Near(FixedScorer):
        def contributions(self, frame: Frame) -> Any:
            return self.row + np.array([TOLERANCE / 2, 0], np.float32)

    assert [code for code, _, _ in Near({"a": (1.0, "c", "s")}).explain(1)] == ["c"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 39), min_size=1, max_size=40))
def test_the_same_evidence_gives_the_same_reasons_in_any_company_and_by_either_route(
    scorer: Scorer, bundle: Path, make_rows: Callable[..., pa.Table], places: list[int]
) -> None:
    from batchscore.models.bundle import read_manifest

    reference = load_scorer(read_manifest(bundle).reference, route="xgboost")
    frame = conform(make_rows(40, seed=6), scorer.names)
    together = explain(scorer, frame, scorer.margin(frame))
    some = frame.take(np.array(places))
    assert explain(reference, some, scorer.margin(some)) == tuple(together[place] for place in places)


def test_no_rows_have_no_reasons(scorer: Scorer, make_rows: Callable[..., pa.Table]) -> None:
    frame = conform(make_rows(0), scorer.names)
    assert explain(scorer, frame, scorer.margin(frame)) == ()
