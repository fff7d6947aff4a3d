"""completion: the script that makes a shell complete commands, options and run ids."""

from __future__ import annotations

import click

from batchscore.cli.options import JSON

_INSTALL = {
    "bash": 'eval "$(batchscore completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(batchscore completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "batchscore completion fish > ~/.config/fish/completions/batchscore.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@JSON
def completion(shell: str, *, as_json: bool) -> int:
    """Print the completion script of SHELL: commands, options, and the run ids of the store.

    \b
    bash: eval "$(batchscore completion bash)"    in ~/.bashrc
    zsh:  eval "$(batchscore completion zsh)"     in ~/.zshrc, after compinit
    fish: batchscore completion fish > ~/.config/fish/completions/batchscore.fish
    """  # noqa: D301 (click reads the backspace itself)
    from click.shell_completion import get_completion_class

    from batchscore.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    made = kind(cli, {}, "batchscore", "_BATCHSCORE_COMPLETE")
    text = made.source_template % made.source_vars()  # .source() would first start a bash, to ask for its version
    if as_json:
        from batchscore.cli.outputs import Script

        click.echo(Script(shell=shell, install=_INSTALL[shell], script=text).model_dump_json(indent=2))
    else:
        click.echo(text)
    return 0
