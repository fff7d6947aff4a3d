"""Where rows come from: Parquet files and live tables, brought to one canonical form. The only rooms that read raw input."""
