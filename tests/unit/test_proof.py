"""The proof closes exactly when every planned account is in one part, and says what is lost when it does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.digest import KeyDigest
from batchscore.keys import key_digest
from batchscore.plan import Stage
from batchscore.receipt import Receipt
from batchscore.report.proof import ACCOUNTS, KeysSetAside, key_name, prove

AS_OF = datetime(2002, 8, 19, tzinfo=UTC)
EMPTY = str(KeyDigest())


def keys(*ids: int) -> KeyDigest:
    return key_digest(pa.array(ids, pa.uint64()))


def frozen(*ids: int) -> Receipt:
    return Receipt(
        stage=Stage.FREEZE,
        number=0,
        address="freeze/x",
        attempt="a",
        outputs=(),
        keys={ACCOUNTS: str(keys(*ids))},
        counts={"rejected null_id": 2},
    )


def scored(**parts: tuple[int, ...]) -> Receipt:
    return Receipt(
        stage=Stage.SCORE,
        number=0,
        address="score/x",
        attempt="a",
        outputs=(),
        counts={key_name("orphans", AS_OF): 3},
        keys={key_name(part, AS_OF): str(keys(*ids)) for part, ids in parts.items()},
    )


def test_a_proof_closes_when_every_account_is_in_exactly_one_part() -> None:
    proof = prove(
        [AS_OF],
        [frozen(1, 2), frozen(3, 4, 5)],
        [],
        [scored(scored=(5, 1), rejected=(2,)), scored(outside=(4,), scored=(3,))],
        {},
    )
    assert proof.closes
    assert proof.as_ofs[0].planned == str(keys(1, 2, 3, 5))
    assert proof.as_ofs[0].lost == EMPTY
    assert (proof.n_rows_rejected, proof.n_orphans) == (4, 6)


@pytest.mark.parametrize(("repeated", "closes"), [((1, 1, 3), True), ((1, 3), False), ((1, 3, 3), False), ((1, 1, 3, 3), False)])
def test_an_account_with_several_rows_is_planned_once_and_no_row_may_be_lost_or_doubled(
    repeated: tuple[int, ...], closes: bool
) -> None:
    proof = prove([AS_OF], [frozen(1, 2, 1), frozen(3, 1, 3)], [], [scored(scored=(1, 2), outside=(3,), repeated=repeated)], {})
    assert proof.closes is closes
    if closes:
        assert proof.accounts == str(keys(1, 2, 3))
        assert proof.as_ofs[0].planned == str(keys(1, 2))


def test_a_quarantined_partitions_keys_are_accounted_for() -> None:
    proof = prove([AS_OF], [frozen(1, 2, 3)], [], [scored(scored=(1,))], {AS_OF: KeysSetAside(planned=keys(2), outside=keys(3))})
    assert proof.closes
    assert proof.as_ofs[0].quarantined == str(keys(2))


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ({"scored": (1, 2)}, "lost"),
        ({"scored": (1, 2, 3, 3)}, "doubled"),
        ({"scored": (1, 2, 2)}, "one lost and another doubled: counts agree"),
        ({"scored": (1, 2, 4)}, "swapped for a stranger: counts agree"),
        ({"scored": (1, 2, 3), "rejected": (3,)}, "in two parts"),
    ],
)
def test_a_proof_does_not_close_when_an_account_is(parts: dict[str, tuple[int, ...]], rule: str) -> None:
    assert not prove([AS_OF], [frozen(1, 2, 3)], [], [scored(**parts)], {}).closes, rule


@given(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=30), st.data())
def test_any_cut_into_parts_closes_and_losing_any_one_key_does_not(ids: set[int], data: st.DataObject) -> None:
    parts: dict[str, list[int]] = {}
    for key in ids:
        parts.setdefault(data.draw(st.sampled_from(["scored", "rejected", "unscoreable", "outside"])), []).append(key)
    whole = {part: tuple(found) for part, found in parts.items()}
    assert prove([AS_OF], [frozen(*ids)], [], [scored(**whole)], {}).closes
    part = data.draw(st.sampled_from(sorted(whole)))
    whole[part] = whole[part][1:]
    assert not prove([AS_OF], [frozen(*ids)], [], [scored(**whole)], {}).closes
