"""Functions of an installed distribution make features row by row; what is not so is refused, and no value is ever told."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.errors import PartitionError, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frame
from batchscore.features.python import check_row_wise, fingerprints, refuse_other_functions
from tests.unit.features.small_log import START, feature_set

RULES = """
import numpy as np
calls = []

def risk(frame):
    return np.where(frame["a"] > 2, frame["a"] * 2, np.nan)

def listed(frame):
    return [None if np.isnan(value) else float(value) for value in frame["b"]]

def centred(frame):
    return frame["a"] - frame["a"].mean()

def shifted(frame):
    return frame["a"].cumsum()

def counted(frame):
    calls.append(1)
    return frame["a"] * 0 + len(calls)

def spoiling(frame):
    values = frame["a"]
    frame["a"] = 0.0
    return values + 1

def telling(frame):
    raise ValueError(f"no risk for {frame['b'].tolist()}")

def one(frame):
    return [1.0]

def words(frame):
    return ["secret"] * len(frame)

constant = 7
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A distribution of one module, installed for one test. Returns the module's name."""
    name = f"rules_{abs(hash(request.node.name)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(RULES)
    about = tmp_path / f"mail_{name}-1.4.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mail-{name}\nVersion: 1.4\n")
    (about / "RECORD").write_text(f"{name}.py,,\n")
    (about / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def features_with(function: str) -> FeatureSet:
    return feature_set(
        f"a: {{column: p}}\nb: {{column: q}}\nx: {{python: '{function}', of: [a, b]}}", accounts=", immutable: [p, q]"
    )


ACCOUNTS = pa.table(
    {"account_id": pa.array([1, 2, 3], pa.uint64()), "p": pa.array([1, 3, None], pa.int8()), "q": pa.array([0.5, None, 2.0])}
)


@pytest.mark.parametrize(
    ("function", "expected"), [("risk", [None, 6.0, None]), ("listed", [0.5, None, 2.0]), ("spoiling", [2.0, 4.0, None])]
)
def test_a_row_wise_function_makes_a_feature_of_earlier_ones(rules: str, function: str, expected: list[float | None]) -> None:
    features = features_with(f"{rules}:{function}")
    check_row_wise(features)
    frame = make_frame(ACCOUNTS, {}, START, features)
    assert frame["x"].type == pa.float64()
    assert [None if math.isnan(value) else value for value in frame["x"].to_pylist()] == expected
    assert frame["a"].to_pylist() == [1, 3, None]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("centred", "gives other values for rows in two parts"),
        ("shifted", "gives other values for rows in another order"),
        ("counted", "gives other values for the same rows again"),
        ("telling", "raised ValueError"),
        ("one", r"gave \(1,\) values for 64 rows"),
        ("words", "raised ValueError"),
        ("constant", "is no function of that module"),
        ("absent", "is no function of that module"),
    ],
)
def test_a_function_that_is_not_row_wise_or_fails_is_refused(rules: str, function: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        check_row_wise(features_with(f"{rules}:{function}"))
    assert refused.value.reason == "python_feature"


def test_a_failing_function_stops_the_partition_and_tells_no_value(rules: str) -> None:
    with pytest.raises(PartitionError) as failed:
        make_frame(ACCOUNTS, {}, START, features_with(f"{rules}:telling"))
    assert failed.value.reason == "python_feature"
    assert "0.5" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_its_distributions_version_and_its_file_are_pinned(rules: str) -> None:
    features = features_with(f"{rules}:risk")
    pinned = fingerprints(features)
    assert pinned[f"{rules}:risk"].startswith(f"mail-{rules} 1.4 sha256:")
    refuse_other_functions(features, pinned)
    with pytest.raises(Refused, match="was planned"):
        refuse_other_functions(features, {f"{rules}:risk": f"mail-{rules} 1.5 sha256:0"})


def test_a_function_of_no_installed_distribution_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loose_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    for function in ("loose_rules:risk", "nowhere_at_all:risk"):
        with pytest.raises(Refused, match="is of no installed distribution"):
            fingerprints(features_with(function))
    assert "loose_rules" not in sys.modules  # nothing of it was run


def test_a_module_that_its_distribution_lacks_is_refused(rules: str) -> None:
    with pytest.raises(Refused, match="cannot be imported: ModuleNotFoundError"):
        fingerprints(features_with(f"{rules}.more:risk"))


@pytest.mark.parametrize("function", ["risk", "listed"])
def test_a_process_with_old_code_refuses_the_pin_of_a_newer_file(rules: str, tmp_path: Path, function: str) -> None:
    loaded = fingerprints(features_with(f"{rules}:risk"))[f"{rules}:risk"]
    newer = RULES + "\n# version 2\n"
    (tmp_path / f"{rules}.py").write_text(newer)
    planned = f"mail-{rules} 1.4 sha256:{hashlib.sha256(newer.encode()).hexdigest()}"
    features = features_with(f"{rules}:{function}")
    with pytest.raises(Refused, match="restart what loaded another"):
        refuse_other_functions(features, {f"{rules}:{function}": planned})
    refuse_other_functions(features, {f"{rules}:{function}": loaded})
