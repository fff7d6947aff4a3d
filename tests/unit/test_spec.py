"""Run specs: what is accepted, and that every mistake is told at once with its line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.document import MAX_BYTES, parse_document
from batchscore.errors import Refused
from batchscore.spec import RunSpec, read_spec
from batchscore.values import parse_duration

GOOD = """\
name: weekly
feature_set: features.yaml
sources:
  accounts: {sql: {url: production, table: accounts}}
  mails: {parquet: {path: mails}}
bundles: [bundle]
as_of: {from: 2002-08-19, to: 2002-09-30, every: 7d}
policy: {queue: abuse, threshold: 0.5, budget: 25}
release: latest
"""


def parse(text: str) -> RunSpec:
    return parse_document(text, RunSpec, name="spec.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(Refused) as refusal:
        parse(text)
    assert refusal.value.reason == "spec_invalid"
    assert refusal.value.exit_code == 2
    return [str(problem) for problem in refusal.value.problems]


def test_a_range_of_as_ofs_includes_both_ends() -> None:
    as_ofs = parse(GOOD).as_ofs()
    assert as_ofs[0] == datetime(2002, 8, 19, tzinfo=UTC)
    assert as_ofs[-1] == datetime(2002, 9, 30, tzinfo=UTC)
    assert len(as_ofs) == 7


@pytest.mark.parametrize(
    "as_of", ["2002-08-19", "[2002-08-19]", "['2002-08-19']", "2002-08-19T02:00:00+02:00", "[2002-08-19T00:00:00Z]"]
)
def test_an_as_of_is_a_date_at_midnight_utc_or_a_time_with_a_zone(as_of: str) -> None:
    spec = parse(GOOD.replace("{from: 2002-08-19, to: 2002-09-30, every: 7d}", as_of))
    assert spec.as_ofs() == (datetime(2002, 8, 19, tzinfo=UTC),)


def test_relative_locations_start_at_the_specs_folder(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD)
    spec = read_spec(tmp_path / "spec.yaml")
    assert spec.store == str(tmp_path / "store")
    assert spec.sources["mails"].parquet is not None
    assert spec.sources["mails"].parquet.path == str(tmp_path / "mails")


def test_one_bundle_flags_and_others_are_shadows_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        GOOD.replace("[bundle]", "[{path: candidate, shadow: true}, bundle, {path: x, shadow: true}]")
    )
    spec = read_spec(tmp_path / "spec.yaml")
    assert spec.bundle_paths == tuple(str(tmp_path / name) for name in ("bundle", "candidate", "x"))
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("bundles", "says"),
    [
        ("[]", "no bundle flags"),
        ("[{path: a, shadow: true}]", "no bundle flags"),
        ("[a, b]", "2 bundles are to flag"),
        ("[a, {path: b, shade: true}]", "unknown key"),
    ],
)
def test_bundles_of_which_not_exactly_one_flags_are_refused(bundles: str, says: str) -> None:
    (problem,) = problems(GOOD.replace("[bundle]", bundles))
    assert says in problem


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    text = (
        GOOD.replace("threshold: 0.5", "threshold: 1.5")
        .replace("release: latest", "relase: latest")
        .replace("bundles: [bundle]\n", "")
    )
    assert problems(text) == [
        "spec.yaml:1: bundles: is missing → add it",
        "spec.yaml:7: policy.threshold: Input should be less than or equal to 1",
        "spec.yaml:8: relase: unknown key → did you mean 'release'?",
    ]


@pytest.mark.parametrize("threshold", [".nan", ".inf", "1.5", "-0.1", '"0,5"', "0,5", "'0.5'", "true"])
def test_a_threshold_that_is_no_probability_is_refused(threshold: str) -> None:
    (problem,) = problems(
        GOOD.replace("threshold: 0.5", f"threshold: {threshold}").replace("{queue: abuse, ", "{").replace(", budget: 25", "")
    )[:1]
    assert problem.startswith("spec.yaml:8: policy")


@pytest.mark.parametrize("share", [".nan", "1.5", "-0.1", "'0.5'", "true"])
@pytest.mark.parametrize("limits", ["{{rejected: {}}}", "{{by_segment: {{quarantined: {}}}}}"])
def test_an_error_budget_that_is_no_share_is_refused(share: str, limits: str) -> None:
    (problem,) = problems(f"{GOOD}limits: {limits.format(share)}\n")
    assert ": limits." in problem


@pytest.mark.parametrize("budget", ["-1", "2.5", "many", "true", "1e99"])
def test_a_budget_that_is_no_count_is_refused(budget: str) -> None:
    assert problems(GOOD.replace("budget: 25", f"budget: {budget}"))[0].startswith("spec.yaml:8: policy.budget")


def test_a_policy_without_any_bound_is_refused() -> None:
    assert "threshold, a budget or both" in problems(GOOD.replace(", threshold: 0.5, budget: 25", ""))[0]


def test_a_key_that_stands_twice_is_refused_with_both_readings_possible() -> None:
    assert problems(GOOD + "release: none\n") == [
        "spec.yaml:10: the key 'release' stands here a second time → keep one of the two"
    ]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [id]", "!secret x", "!!binary aGk=", "!!set {a}"])
def test_a_yaml_tag_is_never_obeyed(tag: str) -> None:
    assert any("spec.yaml:1" in problem for problem in problems(GOOD.replace("name: weekly", f"name: {tag}")))


@pytest.mark.parametrize(
    "value",
    [
        "!!bool maybe",
        "!!int ''",
        "!!timestamp x",
        "!!float " + ":".join(["59"] * 200),
        "12:30",
        "1" + ":59" * 300_000,
        "9" * 65,
    ],
    ids=lambda value: value[:20],
)
def test_a_value_that_is_none_of_its_tag_is_a_mistake_with_its_line(value: str) -> None:
    found = problems(GOOD.replace("threshold: 0.5", f"threshold: {value}"))
    assert "spec.yaml:8: this value cannot be read → quote it if it is meant as text" in found


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)
    )
    assert "anchors and aliases" in problems(bomb)[0]


@pytest.mark.parametrize("text", ["", "[]", "just text", "a: [", "a:\n\t- b", "\x00", "? {a: b}\n: c", "[" * 5000])
def test_what_is_no_mapping_or_no_yaml_is_refused(text: str) -> None:
    assert problems(text)


def test_a_file_that_is_missing_binary_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="file_missing"):
        read_spec(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="UTF-8"):
        read_spec(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(Refused, match="larger than"):
        read_spec(tmp_path / "huge.yaml")


def test_a_source_is_parquet_or_sql_and_not_both() -> None:
    assert "either parquet or sql" in problems(GOOD.replace("{parquet: {path: mails}}", "{}"))[0]


@pytest.mark.parametrize(
    ("as_of", "word"),
    [
        ("{from: 2002-09-30, to: 2002-08-19, every: 7d}", "before"),
        ("{from: 2002-08-19, to: 2002-09-30, every: 1w}", "duration"),
        ("{from: 2002-08-19, to: 2002-09-30, every: 0d}", "greater than"),
        ("{from: 0001-01-01, to: 9999-01-01, every: 1h}", "as-of dates"),
        ("2002-08-19T06:00:00", "zone"),
        ("[2002-08-19, 2002-08-19]", "twice"),
        ("[]", "empty"),
        ("yesterday", "date"),
    ],
)
def test_an_as_of_that_cannot_be_meant_is_refused(as_of: str, word: str) -> None:
    found = problems(GOOD.replace("{from: 2002-08-19, to: 2002-09-30, every: 7d}", as_of))
    assert any(word in problem for problem in found), found


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    try:
        parse(text)
    except Refused as refusal:
        assert refusal.problems


@given(st.integers(0, 9999), st.sampled_from("dh"))
def test_durations_are_fixed_lengths(count: int, unit: str) -> None:
    assert parse_duration(f"{count}{unit}") == timedelta(**{"d": {"days": count}, "h": {"hours": count}}[unit])


def test_the_mistakes_of_a_policy_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        GOOD.replace(
            "policy: {queue: abuse, threshold: 0.5, budget: 25}",
            "policy:\n  threshold: 0.5\n  per_day: 5\n  sample: 0.1\n  tiers:\n    - {by: plan, values: [free]}\n"
            "  campaign: {by: network, cap: 0}\n  cool_down: {cleared: 30}\n  again: {}\n  guard: {factor: 1}",
        )
    )
    with pytest.raises(Refused) as refusal:
        read_spec(path)
    told = "\n".join(map(str, refusal.value.problems))
    for line, what in (
        ("13", "policy.tiers.0: a tier that changes nothing"),
        ("14", "policy.campaign.cap"),
        ("15", "policy.cool_down.cleared: 30 is not a duration"),
        ("16", "policy.again: nothing is asked for"),
        ("17", "policy.guard.factor"),
    ):
        assert f"spec.yaml:{line}: {what}" in told
    path.write_text(
        GOOD.replace("budget: 25}", "per_day: 5, sample: 0.1}").replace("threshold: 0.5", "threshold: 0.5, budget: 1")
    )
    with pytest.raises(Refused, match=r"per_day paces a reserve, and there is none.*sample is a share of a budget"):
        read_spec(path)


def test_a_policy_goes_by_declared_groups_alone(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    policy = "policy:\n  budget: 25\n  domain: mail_domain\n  tiers:\n    - {by: plan, values: [1, true], budget: 2}\n"
    path.write_text(GOOD.replace("policy: {queue: abuse, threshold: 0.5, budget: 25}\n", policy))
    with pytest.raises(Refused) as refusal:
        read_spec(path)
    assert [str(problem) for problem in refusal.value.problems] == [
        "spec.yaml:10: policy.domain: 'mail_domain' is not among the groups → declare it: groups: [mail_domain]",
        "spec.yaml:12: policy.tiers.0.by: 'plan' is not among the groups → declare it: groups: [plan]",
    ]
    path.write_text(path.read_text() + "segment: plan\ngroups: [mail_domain]\n")
    spec = read_spec(path)
    assert spec.group_columns == ("plan", "mail_domain")
    assert spec.policy.tiers[0].values == ("1", "true")


def test_what_a_policy_does_not_ask_for_is_not_pinned() -> None:
    spec = parse(GOOD)
    assert spec.policy.pinned() == {"queue": "abuse", "threshold": 0.5, "budget": 25}
    asked = parse(GOOD.replace("budget: 25}", "budget: 25, reserve: 5}"))
    assert asked.policy.pinned() == {"queue": "abuse", "threshold": 0.5, "budget": 25, "reserve": 5}
