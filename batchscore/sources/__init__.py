"""Where rows come from: Parquet files and live tables, brought to one canonical form. The only rooms that read raw input.

| module | what it does |
|---|---|
| `works` | which input files are frozen, or rolled up, together |
| `freeze`, `groups`, `segment` | rows of any source → snapshots, events, and the groups that accounts are in |
| `outside_a_run` | the same into a scratch folder, for whoever wants features and no run |
| `canonical` | raw rows → ids, times and columns in one form; what has no place in it is rejected with a code |
| `column_types`; `text_times`, `utc_times` | what a column may hold by its type; times: from text, and in UTC |
| `parquet_files`, `parquet_columns`, `parquet` | which files there are; whether their columns can be used; their rows |
| `sql`, `live_events` | accounts and events of a live table: looked at when planning, cut into ranges, read in pages |
| `sqlite`; `mysql`, `mysql_columns` | what each database is asked: a page, a column |
| `mysql_key`, `mysql_ranges` | the key by which a table of MySQL is paged, and the bounds of ranges along it |
| `mysql_fast`, `mysql_fast_child`, `shared_page` | connectorx in a child, and the memory in which its pages come |
| `where_sql` | a source's filter as SQL |
| `brake`, `gentle`, `load` | whether a live source may be read on: who asks, what follows, what is looked at |
| `recent` | whether footers tell that an input stopped long ago |
"""
