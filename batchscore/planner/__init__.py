"""From a spec to a plan: reads the feature set, the manifest, the inputs' footers and the live table's shape. Writes nothing.

Everything that would make a run wrong and can be known now is refused now, all of it together.

| module | what it does |
|---|---|
| `agreement` | whether spec, feature set and bundles speak of the same things |
| `inputs` | which files and tables there are, and whether they can be used as declared |
| `pinned` | the parts whose change makes another run |
| `estimates` | the stages, and about how much there is of each |
| `told` | what a person is told beside |
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from batchscore.acceptance import Accepted, accept, changes, left, refuse
from batchscore.command import command
from batchscore.errors import Refused
from batchscore.features.feature_set import read_feature_set
from batchscore.features.python import check_row_wise
from batchscore.models.bundle import read_manifest
from batchscore.plan import Plan
from batchscore.planner.agreement import refuse_mismatch
from batchscore.planner.estimates import stage_estimates
from batchscore.planner.inputs import read_inputs
from batchscore.planner.pinned import pinned_of
from batchscore.planner.told import incomplete_days, warnings_of_as_ofs, warnings_of_silence
from batchscore.ports import RunRow
from batchscore.spec import RunSpec
from batchscore.store.place import require_place


def make_plan(spec: RunSpec, *, now: datetime | None = None) -> Plan:
    """The plan of ``spec``. ``now`` is the clock's, and only what a person is told, and whether a ``lag`` is over, follow it.

    Raises:
        Refused: anything that can be known now and would make the run wrong: in the spec, the feature set, the bundle, the
            inputs' files or columns. Mistakes of one kind come together.
    """
    require_place(Path(spec.store), spec.database)
    feature_set = read_feature_set(Path(spec.feature_set))
    absent = [folder for folder in spec.bundle_paths if not Path(folder).exists()]
    bundles = tuple(read_manifest(Path(folder)) for folder in spec.bundle_paths if folder not in absent)
    refuse_mismatch(spec, feature_set, bundles)
    check_row_wise(feature_set)
    now = datetime.now(UTC) if now is None else now
    # Before files are listed: whatever a marker vouches for is then among them.
    incomplete = incomplete_days(spec, feature_set, now)
    inputs, passed_over, observed = read_inputs(spec, feature_set)
    if absent:  # told last: all else must be right before a bundle can be made
        raise Refused(
            "bundle_missing",
            "no bundle yet",
            where=absent[0],
            remedy="batchscore features build SPEC --as-of DATE --out frame.parquet; then train on it, and pack the model",
        )
    pinned = pinned_of(spec, feature_set, bundles, inputs)
    return Plan(
        spec=spec,
        feature_set=feature_set.frozen_json(),
        bundles=tuple(bundle.reference for bundle in bundles),
        pinned=pinned,
        inputs=inputs,
        stages=stage_estimates(spec, feature_set, inputs, observed),
        observed=observed,
        passed_over=passed_over,
        incomplete=incomplete,
        warnings=(*warnings_of_as_ofs(spec, now), *warnings_of_silence(spec, feature_set, inputs)),
    )


def plan_again(
    row: RunRow, standing: Sequence[Accepted] = (), *, accepts: Sequence[str] = (), by: str = ""
) -> tuple[Plan, tuple[Accepted, ...]]:
    """The plan of an earlier run, made anew, and what of it is newly accepted in the name of ``by``.

    ``standing``: what was accepted of the run before; ``accepts``: the parts that may differ now. The plan keeps what the run has
    pinned, so it is that run's.

    Raises:
        Refused: ``plan_changed`` with every pinned part that differs; ``not_acceptable``; what `make_plan` refuses.
    """
    made = make_plan(row.plan.spec)
    found = left(changes(row.plan.pinned, row.plan.inputs, made), standing)
    accepted = accept(found, accepts, made.pinned, by=by, mixed=True)
    refuse(
        left(found, accepted),
        what=f"changed since {row.run_id} was planned",
        where=row.run_id,
        command=command("resume", row.run_id, row.plan.spec.store),
        otherwise="put it back, or start a new run of the spec",
    )
    return made.model_copy(update={"pinned": row.plan.pinned}), accepted
