"""help, schema: what an error means, and how files and output are shaped."""

from __future__ import annotations

import click

from batchscore.cli.options import JSON


@click.command(name="help")
@click.argument("errors", metavar="[BS-NNN|REASON]", nargs=-1)
@JSON
def help_(errors: tuple[str, ...], *, as_json: bool) -> int:
    """Explain an error: what it means, what brings it about, what to do. Without one, list them all."""
    from batchscore.cli.error_texts import ADVICE, exits
    from batchscore.cli.outputs import ErrorHelp, HelpShown
    from batchscore.errors import CATALOGUE

    reasons = [_reason(error) for error in errors] or list(CATALOGUE)
    shown = [
        ErrorHelp(
            code=f"BS-{CATALOGUE[reason][0]}",
            reason=reason,
            meaning=CATALOGUE[reason][1],
            causes=ADVICE[reason].causes,
            remedy=ADVICE[reason].remedy,
            exits=exits(reason),
        )
        for reason in reasons
    ]
    if as_json:
        click.echo(HelpShown(errors=tuple(shown)).model_dump_json(indent=2))
    elif errors:
        click.echo("\n\n".join(_paragraphs(error) for error in shown))
    else:
        for error in shown:
            click.echo(f"{error.code}  {error.reason:<24} {error.meaning}")
        click.echo("\nmore of one: batchscore help BS-NNN; of a command: batchscore COMMAND --help")
    return 0


def _reason(asked: str) -> str:
    """The reason that a code, a bare number or a reason names."""
    from batchscore.errors import CATALOGUE
    from batchscore.spelling import did_you_mean

    by_code = {str(number): reason for reason, (number, _) in CATALOGUE.items()}
    word = asked.casefold().removeprefix("bs-")
    reason = by_code.get(word, word.replace("-", "_"))
    if reason not in CATALOGUE:
        hint = did_you_mean(reason, CATALOGUE, otherwise="batchscore help lists them all")
        msg = f"no error is called {asked!r}: {hint}"
        raise click.UsageError(msg)
    return reason


def _paragraphs(error: object) -> str:
    from batchscore.cli.outputs import ErrorHelp

    assert isinstance(error, ErrorHelp)
    parts = [
        f"{error.code} {error.reason}",
        click.wrap_text(error.meaning, width=_width(), initial_indent="  ", subsequent_indent="  "),
    ]
    for title, text in (("causes", error.causes), ("what to do", error.remedy), ("exit code", error.exits)):
        parts.append(f"{title}:\n" + click.wrap_text(text, width=_width(), initial_indent="  ", subsequent_indent="  "))
    return "\n\n".join(parts)


def _width() -> int:
    from shutil import get_terminal_size

    return max(40, min(100, get_terminal_size((100, 24)).columns))


@click.command()
@click.argument("name", required=False)
def schema(name: str | None) -> int:
    """Print a JSON Schema: of `spec` or `feature-set` for editors, or of what COMMAND prints with --json.

    Without a name, list the names there are. A YAML file names its schema in its first line, for editors:

    \b
    # yaml-language-server: $schema=spec.schema.json
    """  # noqa: D301 (click reads the backspace itself)
    from batchscore.cli.schemas import schema_names, schema_of

    if name is None:
        click.echo("\n".join(schema_names()))
        return 0
    if name not in schema_names():
        msg = f"no schema is called {name!r}: {', '.join(schema_names())}"
        raise click.UsageError(msg)
    import json

    click.echo(json.dumps(schema_of(name), indent=2, ensure_ascii=False))
    return 0
