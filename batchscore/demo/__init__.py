"""The demo: real mail, a simulated world of any size, and a model trained on their past."""
