"""The page: whole in one file, bounded, escaped, and its headline says the most important thing first."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from batchscore.observe.text import plain
from batchscore.plan import Stage
from batchscore.ports import FailureRow
from batchscore.report.histogram import N_BINS
from batchscore.report.model import (
    Alerts,
    Drift,
    DriftLine,
    PartitionTime,
    ReasonCount,
    Rejects,
    Report,
    SegmentFlags,
    Segments,
)
from batchscore.report.page import MAX_DATES, compact, duration, page
from batchscore.report.words import headline
from tests.unit.report.made_reports import FIRST, made_bundle, make_line, make_report

HOSTILE = '</td><script>alert(1)</script>\x1b[31m&amp;\u202e{{7*7}}\' onload="x"\x00\x07'
MAX_BYTES = 500_000


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"meta", "line", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def drawn(report: Report) -> str:
    return page(report, plain=plain)


def hostile_report(n_as_ofs: int = 3, text: str = HOSTILE, times: int = 1) -> Report:
    """A report in which every text that comes from outside is ``text``, and every list is ``times`` as long."""
    reasons = (ReasonCount(code="burst", sentence=text, n_flags=1, n_first=1),) * times
    report = make_report(n_as_ofs=n_as_ofs)
    assert report.flags is not None
    segment = SegmentFlags(segment=text, n_selected=1, n_to_release=1, reasons=reasons[:3])
    return report.model_copy(
        update={
            "run": report.run.model_copy(update={"why": text}),
            "flags": report.flags.model_copy(
                update={"reasons": reasons, "segments": Segments(column=text, shown=(segment,) * min(times, 12), n_others=times)}
            ),
            "failures": (
                FailureRow(
                    stage=Stage.SCORE, number=1, state="quarantined", n_failures=3, n_suspicions=1, reason="a", message=text
                ),
            )
            * times,
            "rejects": (Rejects(stage="freeze", code="null_id", meaning=text, n=1),),
            "alerts": (Alerts(stage="score", code="scorer_differs", meaning=text, n_partitions=1),),
            "slowest": (PartitionTime(stage="score", number=1, n_rows=1, seconds=1.0, parts={"read": 1.0}),) * 8,
            "environment": {"executor": text},
            "digests": {text: text},
            "gaps": (text,) * times,
            "bundles": (made_bundle(text), *(made_bundle(text, shadow=True, histograms=report.histograms) for _ in range(times))),
            "next": (f"batchscore status --store '{text}'",),
        }
    )


def test_the_page_needs_nothing_from_anywhere() -> None:
    html = drawn(hostile_report())
    seen = Seen(html)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name in {"src", "href", "srcset", "action"} or name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import|@font-face", html)


def test_every_element_is_closed_in_its_turn_and_every_table_has_headers() -> None:
    seen = Seen(drawn(hostile_report()))
    assert seen.open == []
    assert seen.tags.count("thead") == seen.tags.count("table") > 0
    assert seen.tags.count("h1") == 1
    assert seen.tags.count("h2") >= 7


def test_names_from_outside_show_as_text() -> None:
    html = drawn(hostile_report())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", html), "no control character but the line feed"
    seen = Seen(html)
    assert "script" not in seen.tags
    assert seen.text.count('</td><script>alert(1)</script>\\x1b[31m&amp;\\x202e{{7*7}}\' onload="x"\\x00\\x07') >= 9


@pytest.mark.parametrize("text", ["plain", "<&'\">" * 200])
def test_a_run_of_ten_years_of_days_with_long_texts_stays_under_half_a_megabyte(text: str) -> None:
    html = drawn(hostile_report(n_as_ofs=3_700, text=text, times=2_000))
    assert len(html.encode()) <= MAX_BYTES
    assert "3,660 earlier as-of dates not shown here" in html


def test_an_as_of_that_does_not_close_is_shown_however_old_it_is() -> None:
    report = make_report(n_as_ofs=400)
    assert report.proof is not None
    broken = make_line(FIRST, closes=False)
    html = drawn(
        report.model_copy(update={"proof": report.proof.model_copy(update={"as_ofs": (broken, *report.proof.as_ofs[1:])})})
    )
    assert html.count("✕ NO") == 1
    assert html.count("✓ yes") == MAX_DATES - 1


def test_bundles_are_compared_where_there_is_more_than_one() -> None:
    assert 'id="bundles"' not in drawn(make_report())
    report = make_report()
    shadow = made_bundle("candidate", shadow=True, histograms=report.histograms, psi=0.125)
    text = Seen(drawn(make_report(bundles=(*report.bundles, shadow)))).text
    assert re.search(r"candidate\s*shadow\s*10\s*0\s*0\s*closes\s*0.00 s\s*3 min 20 s\s*0.125", text), (
        "2 ms for 10: 200 s a million"
    )


def test_drift_is_drawn_over_the_scores() -> None:
    line = DriftLine(as_of=make_report().run.as_ofs[-1], against_as_of=FIRST, psi=0.3)
    drift = Drift(against_run="r-87654321-1", latest=line, against_counts=(5,) * N_BINS, lines=(line,))
    html = drawn(make_report(drift=drift))
    assert html.count('class="against"') == N_BINS
    assert "moved much" in html
    assert 'class="against"' not in drawn(make_report())


def test_a_run_that_has_only_begun_has_a_page_too() -> None:
    report = make_report(histograms=(), proof=None, proof_state="not yet", flags=None, stages=(), threshold=None, budget=None)
    begun = report.model_copy(update={"run": report.run.model_copy(update={"state": "running", "finished_at": None})})
    html = drawn(begun)
    assert headline(begun).text == "The run is under way: nothing is laid out yet."
    assert "No score is committed yet" in html


def test_the_headline_of_a_good_run_says_so() -> None:
    said = headline(make_report())
    assert (said.tone, said.text) == ("good", "Every account is accounted for, once. 1 flag is before the reviewers.")


def test_a_proof_that_does_not_close_comes_before_all_else() -> None:
    report = make_report(proof_state="does not close")
    failed = report.model_copy(update={"run": report.run.model_copy(update={"state": "failed"})})
    assert headline(failed).tone == "bad"
    assert headline(failed).text.startswith("The proof does not close")


def test_what_was_set_aside_is_in_the_headline() -> None:
    report = make_report()
    assert report.proof is not None
    proof = report.proof.model_copy(update={"as_ofs": (make_line(FIRST, n_quarantined=250),)})
    said = headline(report.model_copy(update={"proof": proof}))
    assert said.tone == "look"
    assert "250 of 1,000 scores are missing" in said.text


def test_a_run_that_releases_nothing_says_what_it_simulated() -> None:
    report = make_report()
    simulated = report.model_copy(update={"run": report.run.model_copy(update={"release": "none"})})
    assert "Nothing was to be released; 2 flags simulated." in headline(simulated).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.254, "0.25 s"),
        (12.4, "12 s"),
        (59.9, "60 s"),
        (200, "3 min 20 s"),
        (3_599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
    ],
)
def test_seconds_are_said_as_people_say_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (999, "999"), (1_000, "1.0k"), (98_123_456, "98.1M"), (2_500_000_000, "2.5G"), (10**13, "10000.0G")]
)
def test_counts_over_bars_are_short(n: int, text: str) -> None:
    assert compact(n) == text
