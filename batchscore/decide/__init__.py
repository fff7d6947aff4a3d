"""Decide: scores, policy and memory become flags. Pure: no I/O, no clock.

| module | what it does |
|---|---|
| `top` | the whole of it: scores of an as-of → flags, reserve, and who was withheld |
| `best` | the best so many of all scores |
| `tiers`, `walk` | what a candidate uses up of which budget; the walk from the best down |
| `memory`, `again` | whom earlier flags and suppressions keep back; who was cleared and may be flagged again |
| `adding` | to whose flag that stands evidence may be added |
| `sample` | accounts drawn below the line |
| `table` | the decision as a table |
| `guard` | whether flags are like those of the last runs |
"""
