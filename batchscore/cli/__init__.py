"""The command line: each command is one call of the layers below. The only place that prints and that exits.

| module | what it does |
|---|---|
| `main` | the entry point: the group of commands; an error becomes a message and an exit code |
| `bug` | what is said of an exception that nobody foresaw |
| `learn`, `error_texts`, `schemas`, `completion` | help on errors and files; JSON Schemas; what completes a command |
| `options`, `outputs` | what commands share: their options; the model behind each ``--json`` |
| `walking`, `stopping`, `telling`, `clock` | the walk of a plan; a stop from outside; who hears; what day it is |
| `init`, `demo`, `doctor`, `cluster`, `db` | a first spec, the whole story, what is wrong here, certificates, the database |
| `features`, `bundle` | feature sets and models, before a run needs them |
| `runs`, `schedule` | check, plan, run, resume; backfill and sweep |
| `control`, `approve`, `retry` | pause, continue, cancel; what a run is held for; what it set aside |
| `look`, `report` | status, watch, clean; what a run did |
| `explain`, `compare`, `quality` | why an account; two ways of scoring; how good flags are |
| `queue`, `release`, `suppress` | the reviewer's verbs; more of a run's flags; accounts that are kept out |
| `undo` | undo and verify |
"""

from batchscore.cli.main import main

__all__ = ["main"]
