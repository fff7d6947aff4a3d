"""What a run says of itself, folded from receipts. Pure."""
