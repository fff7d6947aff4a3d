"""Model bundles: packed once, checked before every use, scored by name, explained in words. Only importer of xgboost.

| module | what it does |
|---|---|
| `bundle`, `container` | what a bundle is; the folder or zip that holds it |
| `pack`, `pack_files` | makes one; from files of the command line |
| `certificate`, `bundle_shown` | checks one by every route; what is printed of one |
| `model_file`, `model_document` | what a model file says of itself, and what is refused; its two forms as values |
| `trees`, `effects`, `categories` | its trees and their digest, which way a feature moves a margin, what its codes mean |
| `contract`, `bounds`, `calibration` | which columns a model wants; what they may look like; from margin to score |
| `golden`, `machine` | rows that must give the same bits; the machine they were made on |
| `loading`, `probe`, `first_load` | from a bundle to a scorer; first by a child process that may die |
| `scorer`, `xgboost_scorer` | what a scorer is; the reference |
| `compiled_scorer`, `forest`, `kernel` | the fast scorer; a model as arrays; the machine code over them |
| `compiled_explainer`, `attribution_kernel` | the fast explainer; the machine code of it |
| `attribution`, `attribution_nodes`, `unwinding` | what that adds up, done before any row |
| `machine_code`, `witnesses` | what both are written with, and held against XGBoost by |
| `reasons` | contributions → reason codes in words |
| `training` | small models for the demo and the tests |
"""
