"""How long receipts gather for one commit: half a second, longer where commits are slow, never too long."""

from __future__ import annotations

import pytest

from batchscore.dispatch.dispatcher import pause_after


@pytest.mark.parametrize(("commit_s", "pause_s"), [(0.0, 0.5), (0.01, 0.5), (0.02, 0.5), (0.04, 1.0), (0.08, 2.0), (3.0, 2.0)])
def test_a_slow_commit_is_followed_by_a_longer_pause(commit_s: float, pause_s: float) -> None:
    assert pause_after(commit_s) == pytest.approx(pause_s)
