"""What is said of a run, of two, or of one account: counted and drawn. Pure; `operations` gathers what it is said from.

| module | what it does |
|---|---|
| `proof` | every account accounted for, by key digest |
| `limits` | error budgets, against the proof's counts |
| `work`, `flags`, `histogram`, `drift` | counts of a report: work and times, flags, scores, how scores moved |
| `model`, `words`, `charts`, `page` | a report as a value, its headline, its bars, its page |
| `difference` | two runs: what went in, what came out |
| `comparison`, `comparison_page` | two ways of scoring at equal budget, and the page of it |
| `explanation` | one account at one as-of |
| `quality` | precision, recall and calibration, from what people decided |
| `drawing` | a page from its template |
"""
