"""Verbs over runs that are in a ledger: they read what a run left, and never walk a plan themselves; and `doctor`.

| module | what it does |
|---|---|
| `report`, `difference` | a report of a run; what differs between two |
| `verify`, `trail`, `verified` | proves a run once more; the audit trail against its rows; what was found |
| `explain`, `selection` | one account, all of it made again; what of the policy selected it, or did not |
| `frozen_account`, `frozen_rows` | what a run left of it, and its rows |
| `compare`, `compared_side` | two runs or bundles at equal budget; one side of that |
| `remade`, `contributions` | features made once more, and what a bundle makes of them |
| `quality` | what people decided, gathered |
| `sweep`, `retry` | what a sweep owes; what a retry would do |
| `release`, `approve`, `control` | a person lets more of a run go, lets a held one go on, pauses or cancels one |
| `approved_plan` | holds a plan to the one that was approved |
| `rejects` | what was set aside row by row |
| `following` | the command that comes next for a run as it stands |
| `for_a_person` | what is gone or damaged, as a refusal |
| `doctor` | the machine, the store, a spec and a cluster |
"""
