"""Every night: the sweep as of the day on which the data interval ends. A missed night is covered by the next: no catch-up."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from batchscore_task import JOBS, Batchscore

with DAG(
    "batchscore_sweep",
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    Batchscore(task_id="sweep", words=["sweep", f"{JOBS}/world/sweep.yaml", "--as-of", "{{ data_interval_end | ds }}"])
