"""Features of an account as of a moment: the feature set, rollups of events, and the frame that is scored."""
