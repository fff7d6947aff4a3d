"""Model bundles: packed once, checked before every use, scored by name, explained in words. Only importer of xgboost."""
