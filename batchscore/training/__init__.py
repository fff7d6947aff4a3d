"""What a model is trained on: a feature set's values as of a date, made by the code that scores. No training is done here."""
