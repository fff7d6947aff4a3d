"""Features of an account as of a moment: the feature set, rollups of events, and the frame that is scored.

| module | what it does |
|---|---|
| `feature_set`, `tables`, `definitions` | what a feature set declares: all of it, its tables, each feature |
| `sentences` | a feature in words |
| `rollup`, `rollup_columns`, `partials` | events → rollups: the way, the columns, what each holds for which aggregates |
| `measured`, `exact` | values of a column in one form; sums of them that never wrap |
| `where` | which rows pass a filter |
| `windows`, `stretches` | rollups → features over events, of many as-ofs in one pass |
| `accounts` | which accounts there are as of a moment, and what was known of each |
| `python` | features by ordinary Python functions |
| `frame` | the frame: a row of features for each account |
| `coverage` | whether the data reach back over a window |
| `day_counts`, `input_gate` | events by day as they are rolled up; whether each day is as usual |
| `poison` | the leak guard |
"""
