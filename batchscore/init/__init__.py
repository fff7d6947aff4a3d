"""init: the first spec and feature set of a team, from a look at its own columns, or with a sample to try everything on."""
