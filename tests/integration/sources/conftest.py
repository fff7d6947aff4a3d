"""The two drivers by which rows of a MySQL table come."""

from __future__ import annotations

import pytest

from batchscore.sources import mysql


@pytest.fixture(params=["pymysql", "connectorx"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which driver rows come."""
    monkeypatch.setattr(mysql, "can_read_fast", lambda _url: request.param == "connectorx")
    if request.param == "connectorx":
        pytest.importorskip("connectorx")
    return str(request.param)
