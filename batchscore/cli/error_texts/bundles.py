"""The model bundle and its contract (BS-3xx)."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import Advice

ADVICE: Final = {
    "bundle_invalid": Advice(
        "There is no bundle yet at the spec's `bundles:` path, it was copied without its manifest, something already "
        "stands where a new one is to be packed, or a feature has no reason sentence.",
        "Copy the whole folder from where it was packed, or pack the trained model into a new folder: "
        "`batchscore.models.pack.pack_bundle` in Python; its docstring says what it wants.",
    ),
    "bundle_digest": Advice(
        "A file of the bundle was edited, or a copy went wrong (a tool that rewrites line ends, for one).",
        "Copy the whole folder again from where it was packed. To change a model, train and pack a new bundle.",
    ),
    "model_format": Advice(
        "A pickle, a joblib file, XGBoost's old binary format, a text dump or a LightGBM model was given. Pickles are "
        "never opened: they run code.",
        "In the environment that trained it: `booster.save_model('model.ubj')`, then pack that file.",
    ),
    "model_version": Advice(
        "The model was saved by a newer XGBoost, whose files an older one may read wrongly without a word.",
        "Install that version here and on every worker, or save the model with the version that scores.",
    ),
    "model_objective": Advice(
        "The model was trained with another objective than binary:logistic (a ranker, a regressor, a custom loss).",
        "Train with `objective='binary:logistic'`: a threshold needs a probability.",
    ),
    "feature_contract": Advice(
        "The feature set was edited after the model was trained, or the bundle is of another feature set. Equal names may "
        "hold other values: a window of 7d in place of 28d, say.",
        "Use the feature set the bundle was trained with (its digest is in the message and in the bundle's manifest), or "
        "train and pack again with this one.",
    ),
    "margin_mismatch": Advice(
        "The features of a flagged account, made a second time, gave another margin: its snapshot changed, or hosts "
        "differ in libraries or in hardware arithmetic.",
        "Run `batchscore doctor --scheduler ADDRESS` to compare the hosts, then the run again with `--again`. If it "
        "stays, report it: it must not be.",
    ),
    "score_invalid": Advice(
        "The model gives NaN or values outside 0 to 1 for many rows; a broken calibration, or inputs it never saw.",
        "Score the bundle's golden rows (`batchscore doctor --spec SPEC`), then look at the features of the named partition.",
    ),
    "golden_mismatch": Advice(
        "This machine does not reproduce what the model gave when it was packed: another XGBoost, or other arithmetic.",
        "Install the library versions of the lock file, or pack the model again on the kind of machine that scores.",
    ),
    "model_crash": Advice(
        "A file that XGBoost loads, and that no tree of XGBoost's would hold: damaged before it was packed, or made to do harm.",
        "Do not use it. Train or save the model again where it was made, and pack that file: `batchscore bundle pack`.",
    ),
    "feature_limit": Advice(
        "A source stopped, a unit changed, or the accounts of this partition really are unlike those the model knows.",
        "Look at the source of the named features; mend it and run again, or pack with other limits: `batchscore bundle pack`.",
    ),
    "bundle_missing": Advice(
        "The model was not trained or not packed yet, or `bundles:` in the spec names another folder.",
        "`batchscore features build SPEC --as-of DATE --out frame.parquet --labels FILE` writes what to train on; train (the "
        "train.py that `batchscore init` writes is a start), pack the model under the name in the spec: `batchscore bundle "
        "pack`, and `batchscore check SPEC`.",
    ),
}

EXITS: Final = {
    "margin_mismatch": "3: the partition of reasons is quarantined, nothing is released",
    "score_invalid": "3: the partition is quarantined",
}
