"""batchscore: a run is a reviewable change to the review queue: planned, applied, proven, undoable."""
