"""Events become what people and machines watch; and how values look on a terminal.

| module | what it does |
|---|---|
| `progress`, `logs`, `metrics` | a run's events as a bar, as lines of a log, as Prometheus metrics |
| `terminal` | how plans, runs, holds, proofs, flags and what `doctor` finds look |
| `queue`, `explanation`, `comparison`, `difference` | how each of these looks |
| `tables`, `text` | tables, and text from outside, for all of them |
"""
