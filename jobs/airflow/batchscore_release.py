"""Every Monday, before reviewers begin: the flags of the day that the data interval ends with, by the backfill's scores."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from batchscore_task import JOBS, Batchscore

DAY = "{{ data_interval_end | ds }}"

with DAG(
    "batchscore_release",
    schedule=CronDataIntervalTimetable("0 5 * * MON", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    Batchscore(
        task_id="release",
        words=["backfill", f"{JOBS}/world/backfill.yaml", "--from", DAY, "--to", DAY, "--release", "latest"],
    )
