"""Verbs over runs that are in a ledger: they read what a run left, and never walk a plan themselves; and `doctor`."""
