"""doctor: looks at the machine, the store, a spec and a cluster, and says what is wrong and its fix. Changes nothing.

To add a check, write a function `Patient → Remark | None` (None: it does not apply) and add it to `CHECKS`. A check that
raises one of our errors is a failure with that error's words and remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from batchscore.errors import BatchscoreError
from batchscore.operations.doctor import asked, machine, place
from batchscore.operations.doctor.finding import CheckFound, Diagnosis, Patient, Remark

Check = Callable[[Patient], Remark | None]

CHECKS: Final[dict[str, Check]] = {
    "python": machine.python,
    "libraries": machine.libraries,
    "extras": machine.extras,
    "xgboost once": machine.xgboost_once,
    "cores": machine.cores,
    "memory": machine.memory,
    "temporary space": machine.temporary_space,
    "open files": machine.open_files,
    "UTF-8": machine.utf8,
    "time zones": machine.zones,
    "loopback": machine.loopback,
    "clock": machine.clock,
    "SQLite": machine.sqlite,
    "store folder": place.writable,
    "store disk": place.local_disk,
    "store space": place.free_space,
    "durable writes": place.durable_writes,
    "hard links": place.hard_links,
    "store tables": place.tables,
    "spec": asked.spec,
    "secrets": asked.secrets,
    "databases": asked.databases,
    "review database": asked.review_database,
    "inputs": asked.inputs,
    "plan": asked.plan,
    "golden rows": asked.golden,
    "cluster": asked.cluster,
    "shared folder": asked.shared_folder,
}


def diagnose(patient: Patient) -> Diagnosis:
    """Every check that applies, in the order of `CHECKS`."""
    findings = tuple(finding for name, check in CHECKS.items() if (finding := _look(name, check, patient)) is not None)
    return Diagnosis(healthy=all(finding.level != "fail" for finding in findings), findings=findings)


def _look(name: str, check: Check, patient: Patient) -> CheckFound | None:
    try:
        seen = check(patient)
    except BatchscoreError as error:
        found = f"{error.code} {error.reason}: {error.what}" + "".join(
            f"; {problem.where}: {problem.what}" for problem in error.problems
        )
        return CheckFound(check=name, level="fail", found=found, remedy=error.remedy or f"batchscore help {error.code}")
    except Exception as error:  # noqa: BLE001 (one check that breaks must not hide the others)
        return CheckFound(
            check=name, level="fail", found=f"could not be looked at ({type(error).__name__})", remedy="report it to batchscore"
        )
    return None if seen is None else CheckFound(check=name, level=seen.level, found=seen.found, remedy=seen.remedy)


__all__ = ["CHECKS", "CheckFound", "Diagnosis", "Patient", "diagnose"]
