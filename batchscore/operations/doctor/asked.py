"""Checks of a spec: its secrets, databases, inputs and bundle; and of a cluster. All read only."""

from __future__ import annotations

from pathlib import Path

from batchscore.database import open_engine, translated
from batchscore.errors import Refused
from batchscore.executors.look import look_at_cluster
from batchscore.features.feature_set import read_feature_set
from batchscore.models.bundle import read_manifest
from batchscore.models.loading import load_scorer
from batchscore.operations.doctor.finding import Patient, Remark, fail, ok
from batchscore.planner import make_plan
from batchscore.settings import database_url
from batchscore.spec import RunSpec, read_spec
from batchscore.store import preflight


def _databases(spec: RunSpec) -> list[str]:
    named = {source.sql.url for source in spec.sources.values() if source.sql is not None}
    return sorted(named | ({spec.database} if spec.database else set()))


def spec(patient: Patient) -> Remark | None:
    """The spec and its feature set are read without a mistake; each mistake is told with its line."""
    if patient.spec_path is None:
        return None
    read = read_spec(patient.spec_path)
    return ok(f"{read.name}, with {len(read_feature_set(Path(read.feature_set)).names)} features")


def secrets(patient: Patient) -> Remark | None:
    """Each database the spec names has its URL in the environment. The URL is never shown."""
    if patient.spec is None:
        return None
    names = _databases(patient.spec)
    for name in names:
        database_url(name)  # refuses, naming the variable
    return ok(f"set: {', '.join(names)}" if names else "the spec names no database")


def databases(patient: Patient) -> Remark | None:
    """Each database answers, read only."""
    if patient.spec is None or not (names := _databases(patient.spec)):
        return None
    for name in names:
        engine = open_engine(database_url(name), read_only=True)
        try:
            with translated(where=f"url: {name}"), engine.connect():
                pass
        finally:
            engine.dispose()
    return ok(f"answer: {', '.join(names)}")


def review_database(patient: Patient) -> Remark | None:
    """A review database on MySQL has its tables, and server, tables and account are as a driver, or a reviewer, needs them."""
    if patient.spec is None or patient.spec.database is None:
        return None
    role, problems = preflight(Path(patient.spec.store))
    if problems:
        return fail("; ".join(f"{problem.where} {problem.what}" for problem in problems), "; ".join(p.remedy for p in problems))
    return ok(f"{patient.spec.database} is ready for a {role}'s account")


def inputs(patient: Patient) -> Remark | None:
    """Every input file is there and can be read."""
    if patient.spec is None:
        return None
    places = {name: source.parquet.path for name, source in patient.spec.sources.items() if source.parquet is not None}
    missing = sorted(name for name, path in places.items() if not Path(path).exists())
    if missing:
        return fail(f"nothing at the path of: {', '.join(missing)}", "correct the paths in the spec: they start at its folder")
    return ok(f"there: {', '.join(sorted(places))}" if places else "no files are named")


def plan(patient: Patient) -> Remark | None:
    """The spec plans without a mistake."""
    if patient.spec is None:
        return None
    made = make_plan(patient.spec)
    return ok(f"plan {made.digest[:12]}")


def golden(patient: Patient) -> Remark | None:
    """The bundle's golden rows give on this machine the bits they gave when it was packed."""
    if patient.spec is None:
        return None
    bundles = [read_manifest(Path(folder)) for folder in patient.spec.bundle_paths]
    for bundle in bundles:
        load_scorer(bundle.reference)
    return ok(f"{sum(bundle.manifest.n_golden for bundle in bundles)} golden rows reproduced to the bit")


def cluster(patient: Patient) -> Remark | None:
    """The scheduler answers, over TLS unless it is here, and its workers run this driver's versions."""
    if patient.scheduler is None:
        return None
    look = look_at_cluster(patient.scheduler, None, insecure=patient.insecure)
    return ok(f"{look.n_workers} worker(s), versions equal to this driver's")


def shared_folder(patient: Patient) -> Remark | None:
    """This driver reads what each worker writes into the store's folder, as the commit protocol demands."""
    if patient.scheduler is None or patient.store is None:
        return None
    if not patient.store.is_dir():
        raise Refused("store_missing", "the folder is not there", where="--store", remedy="make it on the shared file system")
    look = look_at_cluster(patient.scheduler, patient.store, insecure=patient.insecure)
    if look.unread:
        return fail(
            f"{len(look.unread)} of {look.n_workers} worker(s) write where this driver does not read: {look.unread[0]}",
            "mount one shared folder under the same path on every host, and name it as the store",
        )
    return ok(f"what {look.n_workers} worker(s) wrote was read here")
