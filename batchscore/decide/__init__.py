"""Decide: scores, policy and memory become flags. Pure: no I/O, no clock."""
