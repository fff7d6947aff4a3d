"""Events become what people watch: progress on a terminal, lines in a log."""
