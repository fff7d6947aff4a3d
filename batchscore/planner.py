"""From a spec to a plan: reads the feature set, the bundle's manifest, the inputs' footers and the live table's shape. Writes nothing.

Everything that would make a run wrong and can be known now is refused now, all of it together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from batchscore.digest import digest_of
from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.models.bundle import Bundle, read_manifest
from batchscore.plan import InputFile, Plan, StageEstimate
from batchscore.settings import library_versions
from batchscore.sources.parquet import check_schema, list_inputs
from batchscore.sources.sql import inspect_table
from batchscore.spec import RunSpec
