"""What a model is trained on: a feature set's values as of a date, made by the code that scores. No training is done here.

| module | what it does |
|---|---|
| `frame`, `built` | builds it; what was built |
| `rows` | labels, or pairs of account and as-of, from files |
| `labels`, `queue_labels` | which label stands beside which row; labels from what reviewers decided |
"""
