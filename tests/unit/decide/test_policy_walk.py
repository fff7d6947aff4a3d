"""Decide against a sort of everything: ties, budgets, tiers, campaigns, memories, suppressions, reserve, any cut."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.decide import best, top
from batchscore.decide.again import CloserLook, moved_since
from batchscore.decide.memory import Memory, Moment, judge
from batchscore.decide.table import as_earlier, whole
from batchscore.decide.top import Decided, Question, decide, decide_dates
from batchscore.flag import FlagState
from batchscore.policy import Again, Campaign, CoolDown, Policy, Tier
from batchscore.ports import Suppression
from tests.past_flags import PastFlag, past_flag, remember

AS_OF = datetime(2026, 5, 20, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = Moment(as_of=AS_OF, released=True)
COLUMNS = ("country", "plan", "network", "domain")
SUPPRESSIBLE: Final[list[tuple[Literal["account", "domain", "segment"], str]]] = [
    ("account", "7"), ("domain", "a"), ("segment", "b"),
]  # fmt: skip
COOL = CoolDown(cleared=10 * DAY, confirmed=300 * DAY, inconclusive=5 * DAY)

groups = st.fixed_dictionaries({name: st.none() | st.sampled_from("abc") for name in COLUMNS})
tiers = st.lists(
    st.builds(
        Tier,
        by=st.sampled_from(COLUMNS[:2]),
        values=st.sampled_from([(), ("a",), ("b", "c")]),
        threshold=st.none() | st.sampled_from([0.25, 0.75]),
        budget=st.integers(0, 4),
        second_reviewer=st.booleans(),
    ),
    max_size=3,
)
decided_states = st.sampled_from([FlagState.CLEARED, FlagState.CONFIRMED, FlagState.INCONCLUSIVE])


def table(rows: list[tuple[int, float]]) -> pa.Table:
    scores = pa.array([score for _, score in rows], pa.float32())
    return pa.table({"account_id": pa.array([account for account, _ in rows], pa.uint64()), "score": scores, "margin": scores})


def known_groups(held: dict[int, dict[str, str | None]]) -> Any:
    def read(_: datetime, accounts: pa.Array) -> pa.Table:
        ids = accounts.to_pylist()
        columns = {name: pa.array([held[account][name] for account in ids], pa.string()) for name in COLUMNS}
        return pa.table({"account_id": accounts, **columns})

    return read


def tiers_of(policy: Policy, mine: dict[str, str | None]) -> list[Tier]:
    found = []
    for column in dict.fromkeys(tier.by for tier in policy.tiers):
        of_column = [tier for tier in policy.tiers if tier.by == column]
        value = mine[column]
        named = [tier for tier in of_column if value in tier.values]
        rest = [tier for tier in of_column if not tier.values]
        if value is not None and (named or rest):
            found.append((named or rest)[0])
    return found


def withheld_by(
    account: int, score: float, mine: dict[str, str | None], flags: list[PastFlag], held: list[Suppression]
) -> str | None:
    past = [flag for flag in flags if flag.account_id == account]
    if any(flag.closed_at is None for flag in past):
        return "open"
    keys = {"account": str(account), "domain": mine["domain"], "segment": mine["country"]}
    if any(keys[one.scope] == one.key and one.until > AS_OF for one in held):
        return "suppressed"
    decided = sorted((flag for flag in past if flag.decided_at), key=lambda flag: (flag.decided_at, flag.opened_at))
    if not decided:
        return None
    last = decided[-1]
    assert last.decided_at is not None
    if last.decided_at + getattr(COOL, last.state.value) > AS_OF:
        return "cool_down"
    return "unmoved" if last.state is FlagState.CLEARED and score - last.score < 0.25 else None


def expected(  # noqa: C901 (one walk, told as one)
    policy: Policy, scored: dict[int, float], held: dict[int, dict[str, str | None]], withheld: dict[int, str | None]
) -> Any:
    """The rule in plain words: from the best down, until the budget is used."""
    budget = len(scored) if policy.budget is None else policy.budget
    assert policy.campaign is not None
    used: Counter[Any] = Counter()
    members: Counter[str | None] = Counter()
    riding: Counter[Any] = Counter()
    n_units, is_full = 0, False
    found: dict[str, list[int]] = {"flag": [], "reserve": [], "withheld": []}
    for account in sorted(scored, key=lambda account: (-scored[account], account)):
        mine = tiers_of(policy, held[account])
        own = [tier.threshold for tier in mine if tier.threshold is not None]
        least = max(own) if own else (-1.0 if policy.threshold is None else policy.threshold)
        if scored[account] < least or (is_full and len(found["reserve"]) >= policy.reserve):
            continue
        if withheld[account]:
            if not (is_full or (budget == 0)):
                found["withheld"].append(account)
            continue
        campaign = held[account][policy.campaign.by]
        costs = campaign is None or members[campaign] % policy.campaign.cap == 0
        is_full = is_full or budget == 0 or (costs and n_units == budget)
        purses = [(policy.tiers.index(tier), None if tier.values else held[account][tier.by], tier.budget) for tier in mine]
        paying = [
            (number, value, most)
            for number, value, most in purses
            if most is not None and (campaign is None or riding[number, value, campaign] % policy.campaign.cap == 0)
        ]
        if any(used[number, value] >= most for number, value, most in paying):
            if not is_full:
                found["withheld"].append(account)
                withheld[account] = "tier"
            continue
        if is_full and len(found["reserve"]) >= policy.reserve:
            continue
        for number, value, _ in paying:
            used[number, value] += 1
        riding.update((number, value, campaign) for number, value, _ in purses)
        if is_full:
            found["reserve"].append(account)
            continue
        found["flag"].append(account)
        members[campaign] += 1
        if costs:
            n_units += 1
    return found


@settings(max_examples=100, deadline=None)
@given(data=st.data(), waiting=st.sampled_from([1, 3, 65_536]))
def test_a_policy_walks_as_over_a_sort_of_everything(data: st.DataObject, *, waiting: int) -> None:
    scored = data.draw(st.dictionaries(st.integers(0, 60), st.sampled_from([0.0, 0.25, 0.5, 0.5, 0.75, 1.0]), max_size=40))
    accounts = sorted(scored)
    held = {account: data.draw(groups) for account in accounts}
    budget = data.draw(st.none() | st.integers(0, 12))
    policy = Policy(
        threshold=data.draw(st.sampled_from([0.0, 0.5]) if budget is None else st.sampled_from([None, 0.25, 0.5])),
        budget=budget,
        reserve=data.draw(st.sampled_from([0, 3, 50])),
        tiers=tuple(data.draw(tiers)),
        campaign=Campaign(by="network", cap=data.draw(st.integers(1, 3))),
        domain="domain",
        cool_down=COOL,
        again=Again(score=0.25),
    )
    one = st.tuples(st.booleans(), decided_states, st.integers(1, 400))
    known = data.draw(st.dictionaries(st.sampled_from(accounts), one, max_size=10)) if accounts else {}
    flags = [
        past_flag(account, AS_OF - 500 * DAY, None)
        if is_open
        else past_flag(account, AS_OF - 500 * DAY, AS_OF - ago * DAY, state=state, decided_at=AS_OF - ago * DAY, score=0.5)
        for account, (is_open, state, ago) in known.items()
    ]
    asked_for = data.draw(st.lists(st.tuples(st.sampled_from(SUPPRESSIBLE), st.booleans()), max_size=2))
    suppressed = [
        Suppression(scope=scope, key=key, owner="Ada", why="known", begins_at=AS_OF, until=AS_OF + (DAY if holds else -DAY))
        for (scope, key), holds in asked_for
    ]
    order = data.draw(st.permutations(accounts))
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4))), len(order)]
    parts = [table([(account, scored[account]) for account in order[low:high]]) for low, high in pairwise(edges)]
    asked = Question(
        policy=policy,
        memory=remember(flags, suppressed, pa.uint64()),
        scores=lambda _: iter(parts),
        groups=known_groups(held),
        segment="country",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "MIN_WAITING", waiting)
        patch.setattr(top, "SLACK", 1)
        found = decide(asked, NOW).table
    withheld = {account: withheld_by(account, scored[account], held[account], flags, suppressed) for account in accounts}
    wanted = expected(policy, scored, held, withheld)
    for standing, ids in wanted.items():
        rows = found.filter(pa.compute.equal(found["standing"], standing)).to_pylist()
        assert [row["account_id"] for row in rows] == ids, standing
        assert [row["withheld"] for row in rows] == [withheld[account] if standing == "withheld" else None for account in ids]
        for row in rows:
            mine = held[row["account_id"]]
            assert (row["group"], row["segment"], row["domain"]) == (mine["network"], mine["country"], mine["domain"])
            assert row["second_reviewer"] == any(tier.second_reviewer for tier in tiers_of(policy, mine))
    ranked = [rank for rank in found["rank"].to_pylist() if rank is not None]
    assert ranked == list(range(1, len(ranked) + 1))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_tier_gets_more_than_its_budget_by_flags_reserve_and_sample(data: st.DataObject) -> None:
    """Each campaign of a tier uses up one of it for every ``cap`` of its members; 0 is none, and chance is no way around it."""
    scored = {account: data.draw(st.sampled_from([0.1, 0.5, 0.9])) for account in range(data.draw(st.integers(0, 40)))}
    held = {account: data.draw(groups) for account in scored}
    cap = data.draw(st.integers(1, 3))
    policy = Policy(
        budget=data.draw(st.integers(8, 20)),
        reserve=data.draw(st.sampled_from([0, 10])),
        sample=0.5,
        tiers=tuple(data.draw(tiers)),
        campaign=Campaign(by="network", cap=cap),
    )
    decided = ask(scored, policy, groups=known_groups(held), segment="country")
    rows = [row for row in decided.table.to_pylist() if row["standing"] != "withheld"]
    members: Counter[Any] = Counter()
    for row in rows:
        mine = held[row["account_id"]]
        for tier in tiers_of(policy, mine):
            if tier.budget is not None:
                purse = policy.tiers.index(tier), None if tier.values else mine[tier.by]
                members[purse, mine["network"] or row["account_id"], cap if mine["network"] else 1] += 1
    used: Counter[Any] = Counter()
    for (purse, _, size), n in members.items():
        used[purse] += -(-n // size)
    for (number, _), n in used.items():
        assert n <= (policy.tiers[number].budget or 0)
    for stratum in decided.told.strata:
        assert stratum.n_drawn >= 1
        chances = {row["probability"] for row in rows if row["stratum"] == stratum.name}
        assert chances <= {stratum.n_drawn / stratum.n}


def test_whom_a_tier_keeps_out_is_in_no_reserve_and_is_told_why() -> None:
    policy = Policy(budget=2, reserve=5, tiers=(Tier(by="country", values=("staff",), budget=0),))
    held: dict[int, dict[str, str | None]] = {
        account: dict.fromkeys(COLUMNS, "staff" if account < 3 else "x") for account in range(8)
    }
    found = ask({account: 1 - account / 10 for account in range(8)}, policy, groups=known_groups(held)).table.to_pylist()
    assert [(row["account_id"], row["standing"]) for row in found] == [
        *((account, "flag") for account in (3, 4)),
        *((account, "reserve") for account in (5, 6, 7)),
        *((account, "withheld") for account in (0, 1, 2)),
    ]
    assert {(row["withheld"], row["why"]) for row in found[5:]} == {("tier", "the budget of a tier it is in is used up")}


def test_a_suppression_that_was_removed_holds_no_more_for_the_reviewers_and_did_for_an_earlier_date() -> None:
    removed = Suppression(
        scope="account", key="1", owner="Ada", why="known", begins_at=AS_OF - DAY, until=AS_OF + timedelta(hours=9)
    )
    memory = remember([], [removed], pa.uint64(), AS_OF + timedelta(hours=10))
    asked = Question(policy=Policy(budget=1), memory=memory, scores=lambda _: iter([table([(1, 0.9)])]))
    assert decide(asked, NOW).table["standing"].to_pylist() == ["flag"]
    assert decide(asked, Moment(as_of=AS_OF, released=False)).table["withheld"].to_pylist() == ["suppressed"]


def test_of_many_suppressions_the_first_says_why_whatever_the_order_of_scopes() -> None:
    n_accounts, n_suppressions = 500, 4_000
    chance = np.random.default_rng(5)
    keys = {"account": 2 * n_accounts, "domain": 60, "segment": 40}
    scopes = chance.choice(list(keys), n_suppressions, p=[0.99, 0.005, 0.005]).tolist()
    suppressed = [
        Suppression(
            scope=scope, key=str(chance.integers(keys[scope])), owner=f"o{number}", why="x", begins_at=AS_OF, until=AS_OF + DAY
        )
        for number, scope in enumerate(scopes)
    ]
    ids = pa.array(range(n_accounts), pa.uint64())
    named = {
        "account": ids.cast(pa.string()),
        "domain": pa.array([None if one % 7 == 0 else str(one % 90) for one in range(n_accounts)]),
        "segment": pa.array([None if one % 5 == 0 else str(one % 70) for one in range(n_accounts)]),
    }
    candidates = pa.table(
        {"account_id": ids, "score": ids.cast(pa.float32()), "domain": named["domain"], "land": named["segment"]}
    )
    memory = Memory(remember([past_flag(3, AS_OF - DAY, None)], suppressed, pa.uint64()), NOW)
    begun = time.process_time()
    judged = judge(candidates, memory, CoolDown(), {"domain": "domain", "segment": "land"}, moved_since(None, {}), NOW)
    assert time.process_time() - begun < 1.0  # a look-up for each takes ten seconds and more
    owners: dict[int, str] = {}
    places = {scope: [*enumerate(column.to_pylist())] for scope, column in named.items()}
    for held in suppressed:
        for place in [place for place, value in places[held.scope] if value == held.key]:
            owners.setdefault(place, f"{held.scope} suppressed until 21 May 2026 by {held.owner}: x")
    assert np.flatnonzero(judged.suppressed).tolist() == sorted(owners)
    assert judged.whys.tolist() == ["a flag of it stands" if one == 3 else owners.get(one) for one in range(n_accounts)]


def test_a_share_of_a_budget_is_what_is_written() -> None:
    assert Policy(budget=100, sample=0.29).n_sampled == 29


def ask(scored: dict[int, float], policy: Policy, flags: Sequence[PastFlag] = (), **more: Any) -> Decided:
    memory = remember(flags, (), pa.uint64())
    return decide(Question(policy=policy, memory=memory, scores=lambda _: iter([table(list(scored.items()))]), **more), NOW)


def test_the_budget_is_less_by_what_stands_in_the_queue() -> None:
    scored = {account: account / 100 for account in range(10)}
    standing = [past_flag(account, AS_OF - DAY, None) for account in (1, 50, 51)]
    found = ask(scored, Policy(budget=5, less_open=True), standing)
    assert found.told.n_open == 3
    assert found.table.filter(pa.compute.equal(found.table["standing"], "flag"))["account_id"].to_pylist() == [9, 8]
    assert len(ask(scored, Policy(budget=2, less_open=True), standing).table) == 0


def test_a_cleared_account_comes_again_with_what_moved_in_words() -> None:
    on = AS_OF - 17 * DAY
    cleared = past_flag(1, on - DAY, on, state=FlagState.CLEARED, decided_at=on, score=0.5, reason_codes=("a",))
    policy = Policy(budget=5, again=Again(score=0.3, reasons=2, counts={"mails": 400, "gone": 5}))

    def row(score: float, found: CloserLook | None = None) -> Any:
        return ask({1: score}, policy, [cleared], closer_looks=lambda _: {1: found} if found else {}).table.to_pylist()[0]

    then, now = {"mails": 30.0, "gone": float("nan")}, {"mails": 442.0, "gone": 1.0}
    moved = row(0.9, CloserLook(codes=("a", "b", "c"), then=then, now=now))
    assert moved["since"] == "cleared 3 May 2026; since then 412 more mails, 2 new reasons (b, c), score 0.5000 → 0.9000"
    unseen = row(0.7)
    assert (unseen["standing"], unseen["withheld"]) == ("withheld", "unmoved")
    assert unseen["why"] == "cleared 3 May 2026; its score has not risen enough, and nobody looked closer"
    unmoved = row(0.7, CloserLook(codes=("a", "b"), then={}, now={}))
    assert unmoved["why"] == "cleared 3 May 2026; nothing moved enough since"


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_sample_is_the_same_however_scores_are_cut_and_its_probabilities_are_known(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 400))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = list(zip(range(n), np.round(rng.beta(0.3, 2, n), 3).tolist(), strict=True))
    policy = Policy(budget=data.draw(st.integers(8, 60)), sample=0.5, reserve=data.draw(st.sampled_from([0, 20])))
    memory = remember([], (), pa.uint64())

    def found(parts: list[pa.Table]) -> Any:
        return decide(Question(policy=policy, memory=memory, scores=lambda _: iter(parts), seed="plan"), NOW)

    whole = found([table(rows)])
    edge = data.draw(st.integers(0, n))
    shuffled = [rows[place] for place in rng.permutation(n)]
    again = found([table(shuffled[:edge]), table(shuffled[edge:])])
    assert again.table.equals(whole.table)
    flags = whole.table.filter(pa.compute.equal(whole.table["standing"], "flag"))
    assert len(flags) == min(n, policy.budget or 0)
    assert flags["rank"].to_pylist() == list(range(1, len(flags) + 1))
    drawn = flags.filter(pa.compute.is_valid(flags["stratum"])).to_pylist()
    assert sum(stratum.n for stratum in whole.told.strata) == n - (len(flags) - len(drawn))
    for stratum in whole.told.strata:
        mine = [row["probability"] for row in drawn if row["stratum"] == stratum.name]
        assert mine == [stratum.n_drawn / stratum.n] * stratum.n_drawn


def test_every_account_below_the_line_is_as_likely_as_its_stratum_says() -> None:
    rows = [(account, 0.3 + account / 1e4) for account in range(200)]
    policy, memory = Policy(budget=20, sample=0.5), remember([], (), pa.uint64())
    drawn: Counter[int] = Counter()
    for seed in range(120):
        found = decide(Question(policy=policy, memory=memory, scores=lambda _: iter([table(rows)]), seed=str(seed)), NOW).table
        drawn.update(found.filter(pa.compute.is_valid(found["stratum"]))["account_id"].to_pylist())
    assert sum(drawn.values()) == 10 * 120
    mean = 10 * 120 / 190
    assert sum((drawn[account] - mean) ** 2 / mean for account in range(190)) < 260, "chi squared of 189 degrees, p = 0.0005"
    assert not any(drawn[account] for account in range(190, 200)), "the best are flagged by their scores"


@pytest.mark.parametrize(("share", "n"), [(0.29, 29), (0.57, 57), (0.295, 29)])
def test_a_share_of_the_budget_is_what_its_digits_say(share: float, n: int) -> None:
    rows = [(account, 0.3 + account / 1e4) for account in range(200)]
    policy, memory = Policy(budget=100, sample=share), remember([], (), pa.uint64())
    found = decide(Question(policy=policy, memory=memory, scores=lambda _: iter([table(rows)]), seed="a"), NOW).table
    assert len(found.filter(pa.compute.is_valid(found["stratum"]))) == n


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_evidence_is_of_whom_the_policy_would_select_had_no_flag_stood_and_takes_no_place(data: st.DataObject) -> None:
    scored = data.draw(st.dictionaries(st.integers(0, 40), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=30))
    held = {account: data.draw(groups) for account in scored}
    policy = Policy(
        threshold=data.draw(st.sampled_from([None, 0.25])),
        budget=data.draw(st.integers(0, 12)),
        less_open=data.draw(st.booleans()),
        tiers=tuple(data.draw(tiers)),
        campaign=Campaign(by="network", cap=2),
    )
    known = data.draw(st.dictionaries(st.sampled_from(sorted(scored)), st.tuples(st.booleans(), st.booleans()), max_size=10))
    flags = [
        past_flag(
            account,
            AS_OF - 9 * DAY,
            None,
            as_of=AS_OF + DAY * (1 if is_newer else -1),
            margin=scored[account] + moved,
            second_reviewer=True,
        )
        for account, (is_newer, moved) in known.items()
    ]
    suppressed = [Suppression(scope="account", key="3", owner="Ada", why="known", begins_at=AS_OF, until=AS_OF + DAY)]

    def decided(memory: pa.Table) -> dict[str, list[int]]:
        scores = [table([(account, score)]) for account, score in scored.items()]
        asked = Question(policy=policy, memory=memory, scores=lambda _: iter(scores), groups=known_groups(held))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(top, "SLACK", 0)
            rows = decide(asked, NOW).table.to_pylist()
        found: dict[str, list[int]] = {"flag": [], "reserve": [], "evidence": [], "withheld": []}
        for row in rows:
            found[row["standing"]].append(row["account_id"])
            assert row["standing"] != "evidence" or (row["withheld"], row["probability"]) == ("open", None)
        return found

    memory = remember(flags, suppressed, pa.uint64())
    found = decided(memory)
    without = decided(memory.drop_columns(["margin"]))  # of a release that knew no margins: nothing is added
    anyway = expected(policy, scored, held, {account: "suppressed" if account == 3 else None for account in scored})["flag"]
    adds = {account for account, (is_newer, moved) in known.items() if moved and not is_newer and account in anyway}
    assert set(found["evidence"]) == adds
    assert (found["flag"], found["reserve"]) == (without["flag"], without["reserve"])
    assert set(found["withheld"]) == set(without["withheld"]) - adds
    simulated = decide_dates(
        Question(policy=policy, memory=memory, scores=lambda _: iter([table(list(scored.items()))]), groups=known_groups(held)),
        [AS_OF],
        release="none",
    )
    assert "evidence" not in next(simulated)[1].table["standing"].to_pylist()


def test_memory_and_decisions_of_earlier_releases_are_read() -> None:
    now = remember([past_flag(1, AS_OF - DAY, None)], (), pa.uint64())
    then = now.select(["account_id", "opened_at", "closed_at"])
    found = decide(
        Question(policy=Policy(budget=3), memory=then, scores=lambda _: iter([table([(1, 0.9), (2, 0.8)])])), NOW
    ).table
    assert found["withheld"].to_pylist() == [None, "open"]
    old = found.slice(0, 1).select(["account_id", "as_of", "rank", "score", "margin"])
    assert as_earlier(found, old.schema).equals(whole(old))
    assert whole(old).select(["standing", "probability", "withheld"]).to_pylist() == [
        {"standing": "flag", "probability": 1.0, "withheld": None}
    ]
