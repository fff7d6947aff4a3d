"""Every Saturday: what today's model and policy would have flagged on each day of the week that ended. Releases nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from batchscore_task import JOBS, Batchscore

with DAG(
    "batchscore_backfill",
    schedule=CronDataIntervalTimetable("0 6 * * SAT", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    Batchscore(
        task_id="backfill",
        words=[
            "backfill",
            f"{JOBS}/world/backfill.yaml",
            "--from",
            "{{ data_interval_start | ds }}",
            "--to",
            "{{ data_interval_end | ds }}",
        ],
    )
