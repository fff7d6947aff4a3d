"""The cluster, and what is served from it (BS-5xx)."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import Advice

ADVICE: Final = {
    "scheduler_unreachable": Advice(
        "The scheduler is not started, the address or port is wrong, a firewall is between, or one side speaks TLS and "
        "the other does not.",
        "Start it (`dask scheduler`), or leave --scheduler out to use this machine. `batchscore doctor --scheduler "
        "ADDRESS` tries again.",
    ),
    "scheduler_insecure": Advice(
        "The address is on another host and begins with tcp://. Whoever reaches a Dask scheduler runs code on its workers.",
        "Use tls:// with certificates in Dask's configuration (distributed.comm.tls). `--insecure` accepts the risk, for "
        "a network you own.",
    ),
    "version_skew": Advice(
        "Workers were deployed from another lock file: another python, numpy, pandas, pyarrow, xgboost or batchscore.",
        "Install the same lock file on every host, or use one image for driver and workers. The list names each difference.",
    ),
    "no_workers": Advice(
        "The scheduler is up and has no workers yet, or they all died (look for memory kills).",
        "Start some: `dask worker ADDRESS --nthreads 1 --nworkers 4`, then run again.",
    ),
    "scheduler_uncertified": Advice(
        "A tls:// scheduler, and Dask's configuration of this driver names no CA or client's certificate, or files that this "
        "user may not read.",
        "`batchscore cluster certs` makes them; the DASK_DISTRIBUTED__COMM__TLS__… variables of the message name them, as the "
        "units in jobs/systemd do.",
    ),
    "stalled": Advice(
        "A worker hangs (a dead mount, a stopped process, a library that waits for a lock), the partition is larger than the "
        "limit allows for, or a shared cluster is busy with others' tasks.",
        "The run goes on by itself; `stalls/` in the store's folder says where workers stood. Attempts that need longer: a "
        "smaller `partition_rows`, or `--stall-limit MINUTES`.",
    ),
    "metrics_open": Advice(
        "--metrics names an address that is not 127.0.0.1 or ::1, such as 0.0.0.0 in a container.",
        "Scrape from the same host; or say --metrics-off-host, where a firewall or a network policy lets only Prometheus in. "
        "Metrics hold counts and names of specs and stages, nothing of an account.",
    ),
}

EXITS: Final = {
    "stalled": "3: a partition that stalls three times alone is quarantined",
}
