"""A feature set is reviewed text: every mistake is told at once with its line, and equal meaning has one digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from batchscore.document import parse_document
from batchscore.errors import PartitionError, Refused
from batchscore.features.feature_set import FeatureSet, open_feature_set, read_feature_set
from batchscore.features.sentences import explained
from batchscore.plan import Reference
from tests.unit.features.small_log import feature_set

TEXT = """\
feature_set: senders
version: 1
account_id: string
accounts: {table: accounts, key: id, created_at: made, immutable: [zeta, plan], verdict: [banned]}
events:
  - {table: mails, key: id, event_at: {column: ts, unit: s}, known_at: event_at, skew: 1d, verdict: [label]}
features:
  z_7d: {count: mails, window: 7d}
  bytes_7d: {sum: mails.bytes, window: 7d}
  least: {min: mails.bytes}
  most: {max: mails.rcpt}
  mean: {mean: mails.bytes, window: 28d}
  people: {distinct: mails.to, window: 28d}
  active: {days_active: mails, window: 28d}
  quiet: {time_since: mails}
  burst: {ratio: [z_7d, active], say: "its pace is {value}"}
  plan: {column: plan}
  age: {age: created_at}
"""
MORE = """\
  spread: {std: mails.bytes, window: 12h}
  latest: {last: mails.bytes, where: [[rcpt, ">", 3], [kind, in, [a, b]]]}
  favourite: {top_share: mails.to, window: 28d, where: [[[html, "==", true]], [[kind, "!=", "{x}"]]]}
  change: {difference: [z_7d, active]}
  scored: {python: "rules:risk", of: [z_7d, age]}
"""


def read(text: str) -> FeatureSet:
    return parse_document(text, FeatureSet, name="features.yaml", check=FeatureSet.mistakes)


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("{count: mials}", "'mials' is no events table → use one of: mails"),
        ("{count: mails, window: 36h}", "not a whole number of days from 1d to 3650d"),
        ("{count: mails, window: 3651d}", "not a whole number of days from 1d to 3650d"),
        ("{count: mails, window: 0d}", "not a whole number of days from 1d to 3650d"),
        ("{count: mails, window: 7}", "7 is not a duration → write whole days or hours, such as 7d or 12h"),
        ("{count: mails.bytes}", "count wants a table alone, such as mails → change 'mails.bytes'"),
        ("{sum: mails}", "sum wants a column, such as mails.bytes → change 'mails'"),
        ("{sum: 7}", "sum wants a table and column"),
        ("{total: mails.bytes}", "'total' is not a kind of feature → use one of count, sum,"),
        ("{count: mails, sum: mails.bytes}", "needs exactly one of count, sum,"),
        ("{kind: over_events, table: mails, aggregate: sum}", "needs exactly one of count, sum,"),
        ("{sum: mails.label}", "'label' is a verdict column (verdict_feature)"),
        ("{column: banned}", "'banned' is a verdict column (verdict_feature)"),
        ("{column: score_2019}", "'score_2019' is not declared immutable (not_immutable)"),
        ("{column: created_at}", "is the name of a column we make"),
        ("{sum: mails.event_at}", "is the name of a column we make"),
        ("{distinct: mails.account_id}", "is the name of a column we make"),
        ("{ratio: [x, z_7d]}", "'x' is no feature above this one → define it first"),
        ("{ratio: [later, z_7d]}", "'later' is no feature above this one → define it first"),
        ("{ratio: [z_7d]}", "a ratio is of two features"),
        ("{ratio: [z_7d, z_7d], window: 7d}", "a ratio has no window → remove it"),
        ("{age: made}", "an age is counted from created_at"),
        ("{difference: [z_7d, nothing]}", "'nothing' is no feature above this one → define it first"),
        ("{difference: z_7d}", "a difference is of two features"),
        ("{ratio: [z_7d, z_7d], where: [[bytes, '>', 1]]}", "a ratio has no where → remove it"),
        ("{count: mails, where: [[bytes, '>']]}", "a condition has a column, an operator and a value"),
        ("{count: mails, where: [[bytes, like, x]]}", "Input should be"),
        ("{count: mails, where: [[bytes, in, 3]]}", "in wants a list of values"),
        ("{count: mails, where: [[bytes, '>', [3]]]}", "> wants one value"),
        ("{count: mails, where: [[bytes, in, [3, x]]]}", "in wants at least one value, all of one kind"),
        ("{count: mails, where: [[bytes, in, []]]}", "in wants at least one value, all of one kind"),
        ("{count: mails, where: [[]]}", "an empty list of conditions lets everything through"),
        ("{count: mails, where: [[label, '==', spam]]}", "'label' is a verdict column (verdict_feature)"),
        ("{count: mails, where: [[known_at, '>', 3]]}", "is the name of a column we make"),
        ("{python: 'a:b', of: [nothing]}", "'nothing' is no feature above this one"),
        ("{python: 'a:b'}", "says which features it is of"),
        ("{python: 'not a function', of: [z_7d]}", "String should match"),
        ("{count: mails, say: 'sent {valeu} mails'}", "has braces that are not {value}"),
        ("{count: mails, say: ''}", "say"),
    ],
)
def test_a_mistaken_feature_is_refused_with_its_line_and_a_remedy(definition: str, said: str) -> None:
    text = f"{TEXT}  x: {definition}\n  later: {{count: mails}}\n"
    with pytest.raises(Refused, match=re.escape(said)) as refused:
        read(text)
    line = text.splitlines().index(f"  x: {definition}") + 1
    assert [problem.where for problem in refused.value.problems] == [f"features.yaml:{line}"]
    assert refused.value.reason == "spec_invalid"


@pytest.mark.parametrize("name", ["account_id", "as_of", "score", "margin"])
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=f"features.{name}: is a reserved name"):
        read(f"{TEXT}  {name}: {{count: mails}}\n")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        read(f"{TEXT}  a: {{count: mials}}\n  score: {{sum: mails.label, window: 12h}}\n  b: {{ratio: [nothing, nowhere]}}\n")
    assert [problem.where for problem in refused.value.problems] == [f"features.yaml:{line}" for line in (19, 20, 20, 20, 21, 21)]


def test_an_events_table_must_declare_when_its_rows_were_known() -> None:
    with pytest.raises(Refused, match="declare known_at: event_at") as refused:
        read(TEXT.replace("known_at: event_at, ", ""))
    assert [problem.where for problem in refused.value.problems] == ["features.yaml:6"]


@pytest.mark.parametrize("other", ["mails", "accounts"])
def test_a_table_is_declared_once(other: str) -> None:
    with pytest.raises(Refused, match=f"the table '{other}' is declared twice"):
        read(TEXT.replace("features:\n", f"  - {{table: {other}, key: id, event_at: at, known_at: event_at}}\nfeatures:\n"))


def test_an_age_needs_a_declared_created_at() -> None:
    with pytest.raises(Refused, match="accounts declare no created_at"):
        read(TEXT.replace("created_at: made, ", ""))


@pytest.mark.parametrize(("grain", "said"), [("2h", "must be 1d or 1h"), ("7d", "must be 1d or 1h"), ("0d", "grain")])
def test_the_grain_is_a_day_or_an_hour(grain: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        feature_set("n: {count: mails, window: 7d}", grain=grain)


def test_features_keep_the_order_of_the_text_also_when_frozen() -> None:
    features = read(TEXT)
    names = ("z_7d", "bytes_7d", "least", "most", "mean", "people", "active", "quiet", "burst", "plan", "age")
    assert features.names == names
    assert FeatureSet.thaw(features.frozen_json()) == features
    assert FeatureSet.thaw(features.frozen_json()).names == names


def test_the_columns_an_input_needs_are_those_that_features_read() -> None:
    features = read(TEXT)
    assert features.column_names("accounts") == ("plan",)  # zeta is immutable, and no feature reads it
    assert features.column_names("mails") == ("bytes", "rcpt", "to")
    names = [partial.name for partial in features.partials("mails")]
    assert names == ["bytes__min", "bytes__sum", "bytes__valid", "last_at", "n", "rcpt__max", "rcpt__valid", "to__distinct"]


def test_the_digest_follows_meaning_and_order_not_wording() -> None:
    features = read(TEXT)
    reworded = read(
        TEXT.replace("its pace is {value}", "{value}").replace("{count: mails, window: 7d}", "{window: 7d, count: mails}")
    )
    assert reworded.digest == features.digest
    lines = TEXT.splitlines(keepends=True)
    changed = [
        TEXT.replace("window: 7d}", "window: 8d}", 1),
        "".join([*lines[:8], lines[9], lines[8], *lines[10:]]),
        TEXT.replace("skew: 1d", "skew: 2d"),
        TEXT.replace("version: 1", "version: 2"),
        TEXT.replace("verdict: [label]", "verdict: [label, mid]"),
    ]
    assert len({features.digest, *(read(text).digest for text in changed)}) == 1 + len(changed)


def test_a_new_feature_over_the_same_measures_rolls_nothing_up_again() -> None:
    features = read(TEXT)
    more = read(f"{TEXT}  mean_7d: {{mean: mails.bytes, window: 7d}}\n")
    other = read(f"{TEXT}  rcpt: {{sum: mails.rcpt}}\n")
    assert more.rollup_parameters("mails") == features.rollup_parameters("mails")
    assert other.rollup_parameters("mails") != features.rollup_parameters("mails")


def test_each_feature_is_described_in_one_sentence_with_a_place_for_its_value() -> None:
    features = read(TEXT)
    assert {name: features.describe(name) for name in features.names} == {
        "z_7d": "{value} mails in 7 days",
        "bytes_7d": "bytes of mails add up to {value} in 7 days",
        "least": "least bytes of mails ever: {value}",
        "most": "largest rcpt of mails ever: {value}",
        "mean": "mean bytes of mails in 28 days: {value}",
        "people": "{value} different to in mails in 28 days",
        "active": "{value} days with mails in 28 days",
        "quiet": "{value} days since the last of mails",
        "burst": "its pace is {value}",
        "plan": "plan is {value}",
        "age": "the account is {value} days old",
    }
    assert read(TEXT.replace("its pace is {value}", "its pace")).describe("burst") == "its pace: {value}"


def test_filters_functions_and_all_their_columns_are_read_frozen_and_said() -> None:
    features = read(TEXT.replace("account_id: string", "account_id: string\ngrain: 1h") + MORE)
    assert FeatureSet.thaw(features.frozen_json()) == features
    assert features.column_names("mails") == ("bytes", "html", "kind", "rcpt", "to")
    assert features.functions == ("rules:risk",)
    assert {name: features.describe(name) for name in features.names[-5:]} == {
        "spread": "standard deviation of bytes of mails in 12 hours: {value}",
        "latest": "last bytes of mails ever: {value}, where rcpt > 3 and kind is one of a, b",
        "favourite": "share of mails in 28 days with the commonest to: {value}, where html is yes, or kind is not (x)",
        "change": "z_7d less active is {value}",
        "scored": "risk of z_7d, age is {value}",
    }


def test_a_tie_column_is_read_where_first_or_last_need_it() -> None:
    tied = TEXT.replace("skew: 1d", "skew: 1d, tie: serial")
    assert "serial" not in read(tied).column_names("mails")
    assert "serial" in read(f"{tied}  latest: {{last: mails.bytes}}\n").column_names("mails")
    with pytest.raises(Refused, match="'label' is a verdict column"):
        read(TEXT.replace("skew: 1d", "skew: 1d, tie: label"))


def test_every_feature_is_explained_with_its_edges_nulls_and_error() -> None:
    features = read(TEXT.replace("account_id: string", "account_id: string\ngrain: 1h") + MORE)
    told = {name: explained(name, definition, 256) for name, definition in features.features.items()}
    assert (told["z_7d"].window, told["z_7d"].empty, told["z_7d"].nulls) == ("7d up to the as-of", "0", "every event counts")
    assert (told["quiet"].window, told["quiet"].empty) == ("all history", "missing")
    assert told["people"].error == "exact up to 256, beyond it estimated with a standard error of 6.3%"
    assert told["favourite"].error == "exact up to 256 different values, beyond them missing"
    assert told["favourite"].nulls == "a null is an event and no value; a null satisfies no condition of where"
    assert [explanation.error for explanation in told.values() if explanation.name not in {"people", "favourite"}] == [""] * 14


def test_a_frozen_feature_set_is_opened_by_its_digest_only(tmp_path: Path) -> None:
    features = read(TEXT)
    path = tmp_path / "frozen.json"
    path.write_text(features.frozen_json(), encoding="utf-8")
    held = Reference(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert open_feature_set(held) == features
    with pytest.raises(PartitionError) as changed:
        open_feature_set(Reference(path=str(path), sha256="0" * 64))
    assert changed.value.reason == "input_digest_mismatch"


def test_a_file_is_read_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(TEXT, encoding="utf-8")
    assert read_feature_set(tmp_path / "features.yaml") == read(TEXT)
    with pytest.raises(Refused) as missing:
        read_feature_set(tmp_path / "other.yaml")
    assert missing.value.reason == "file_missing"


def test_a_category_is_a_column_of_text_with_which_nothing_is_counted() -> None:
    features = read(TEXT + "  zone: {category: zeta}\n")
    assert features.categories == {"zone": "zeta"}
    assert "zeta" in features.column_names("accounts")
    assert FeatureSet.thaw(features.frozen_json()) == features
    assert features.digest != read(TEXT + "  zone: {column: zeta}\n").digest
    assert '"category"' not in read(TEXT).frozen_json(), "a feature set without one is what it was"
    with pytest.raises(Refused) as refused:
        read(TEXT + "  zone: {category: zeta}\n  pace: {ratio: [z_7d, zone]}\n  raw: {column: zeta}\n")
    told = "\n".join(map(str, refused.value.problems))
    assert "'zone' is a category, and nothing can be counted with a name" in told
    assert "'zeta' is a category of another feature, so it holds text" in told
