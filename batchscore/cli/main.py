"""Entry point: the command group, and the one place where an error becomes a message and an exit code.

Heavy libraries are imported inside the commands, so that ``--help`` stays quick. Whatever goes wrong is said on stderr; with
``--json`` it is also a `Failure` on stdout, so that a program reads one stream and finds one document there.
"""

from __future__ import annotations

import sys

import click

from batchscore.errors import BUG, INTERRUPTED, BatchscoreError

# command → module and function; imported when the command is asked for
COMMANDS = {
    "demo": "batchscore.cli.demo",
    "init": "batchscore.cli.init",
    "doctor": "batchscore.cli.doctor",
    "check": "batchscore.cli.runs",
    "features": "batchscore.cli.features",
    "plan": "batchscore.cli.runs",
    "run": "batchscore.cli.runs",
    "resume": "batchscore.cli.runs",
    "backfill": "batchscore.cli.schedule",
    "sweep": "batchscore.cli.schedule",
    "retry": "batchscore.cli.retry",
    "rejects": "batchscore.cli.retry",
    "undo": "batchscore.cli.undo",
    "verify": "batchscore.cli.undo",
    "release": "batchscore.cli.release",
    "quality": "batchscore.cli.quality",
    "threshold": "batchscore.cli.quality",
    "approve": "batchscore.cli.approve",
    "pause": "batchscore.cli.control",
    "continue": "batchscore.cli.control",
    "cancel": "batchscore.cli.control",
    "status": "batchscore.cli.look",
    "watch": "batchscore.cli.look",
    "queue": "batchscore.cli.queue",
    "suppress": "batchscore.cli.suppress",
    "explain": "batchscore.cli.explain",
    "compare": "batchscore.cli.compare",
    "bundle": "batchscore.cli.bundle",
    "clean": "batchscore.cli.look",
    "report": "batchscore.cli.report",
    "schema": "batchscore.cli.learn",
    "help": "batchscore.cli.learn",
    "db": "batchscore.cli.db",
    "cluster": "batchscore.cli.cluster",
    "completion": "batchscore.cli.completion",
}
_HELP = {
    "demo": "Run the whole story on real mail, or on a simulated world.",
    "init": "Write a first spec and feature set, of your data or with a sample.",
    "doctor": "Look at this machine, a spec, a store, a cluster: what is wrong, and its fix.",
    "check": "Find every mistake in a run spec and its feature set.",
    "features": "Check and explain a feature set, show it for a few accounts, build the frame to train on.",
    "plan": "Show what a run would do, and its hash. Writes nothing.",
    "run": "Do what the plan says; an unfinished run is resumed.",
    "resume": "Go on with a run that was stopped or killed.",
    "backfill": "Run a spec over past as-of dates.",
    "sweep": "Run a spec as of the last whole day, and release; says what was missed.",
    "retry": "Show, or do, what a run left: quarantined partitions, rejected rows.",
    "rejects": "Write the rows and accounts that a run rejected to a file.",
    "undo": "Show, or take back, what a run put before the reviewers.",
    "release": "Show, or put before the reviewers, more of a run: the next of its reserve.",
    "quality": "Precision, recall with what was missed, calibration: from what people decided.",
    "threshold": "What another threshold would give, at a precision or at so many reviews.",
    "verify": "Prove a run again from its files and rows: finds whatever was changed since.",
    "approve": "Let a held run go on, in your name; shows what it is held for.",
    "pause": "Let a run rest, from any host: its driver waits until `continue`.",
    "continue": "Let a paused run go on.",
    "cancel": "End a run, from any host: what is committed stays, `resume` goes on.",
    "status": "Show runs, or the progress of one.",
    "watch": "Follow a run's progress until it ends.",
    "queue": "Show, claim, decide and export flags; read decisions from files; follow what changes.",
    "suppress": "Keep accounts, a domain or a segment from being flagged for a while.",
    "report": "Report on a run, or on what differs between two: a page, or JSON.",
    "explain": "Say why an account was flagged, or was not; made again to the bit.",
    "compare": "Compare two runs, or two bundles on one run's input, at equal budget.",
    "bundle": "Pack a trained model; show, verify and compare what was packed.",
    "clean": "Delete files no run refers to. Shows them first.",
    "schema": "Print JSON Schemas: of specs for editors, of --json for programs.",
    "help": "Explain an error by its code (BS-203) or reason.",
    "db": "Make the tables of a store on MySQL, or print their SQL.",
    "cluster": "Make the certificates of a Dask cluster.",
    "completion": "Print the completion script of a shell.",
}


class _Lazy(click.Group):
    """Knows its commands by name and one line of help; imports one only when it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), _function(cmd_name))
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


def _function(command: str) -> str:
    return f"{command}_" if command in {"continue", "help"} else command  # the keyword and the builtin keep their names


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="batchscore")
def cli() -> None:
    """Score accounts in batches, and put the worst before reviewers.

    A run is a reviewable change to the review queue: planned, applied, proven, undoable.

    Exit codes: 0 done, 2 refused, 3 done with quarantine, 4 held (a person must act), 5 interrupted (resumable), 1 failed: a bug,
    or a database or disk that failed (the message says which; resumable where it says so).
    """


def main() -> None:
    """Run a command; every error raised on purpose becomes its message on stderr and its exit code."""
    try:
        status = cli(standalone_mode=False)
    except BatchscoreError as error:
        # A stopped run's last line is the command that resumes it, to be copied: nothing follows it.
        _complain(str(error) if error.exit_code == INTERRUPTED else f"{error}\n  more: batchscore help {error.code}")
        _fail_in_json(error, "", error.exit_code)
    except click.ClickException as error:
        error.show()
        _fail_in_json(None, error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        _fail_in_json(None, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing is wrong, and nobody listens
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 (the last resort; a traceback may quote a row, so only its place is told)
        from batchscore.cli.bug import tell_bug

        _fail_in_json(None, tell_bug(error), BUG)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _fail_in_json(error: BatchscoreError | None, what: str, exit_code: int) -> None:
    """End with that code, after a `Failure` on stdout for whoever asked for JSON."""
    if "--json" in sys.argv[1:]:
        from batchscore.cli.outputs import Failure

        failure = Failure.of(error) if error else Failure.without_code(what, exit_code=exit_code)
        click.echo(failure.model_dump_json(indent=2))
    sys.exit(exit_code)


def _complain(message: str) -> None:
    from batchscore.observe.text import plain

    click.echo(plain(message), err=True)
