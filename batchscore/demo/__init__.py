"""The demo: real mail, a simulated world of any size, and a model trained on their past.

| module | what it does |
|---|---|
| `story` | the demo itself |
| `real_mail`, `world`, `truth` | what it runs on: mail of the past, or a world of any size; the truth kept apart |
| `place` | its folder |
| `training` | the model it flags with |
| `results`, `precision` | what it shows at the end; how right the flags were |
| `on_mysql`, `mysql_server` | the same on a MariaDB server of its own |
"""
