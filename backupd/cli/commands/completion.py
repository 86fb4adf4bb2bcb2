"""`backupd completion`."""

from __future__ import annotations

import sys
from typing import Literal

from backupd.cli.context import Here


def command(shell: Literal["bash", "zsh", "fish"], /, *, context: Here) -> int:
    """Print the completion script of a shell.

    Parameters
    ----------
    shell
        For bash: put it into ~/.local/share/bash-completion/completions/backupd. For zsh: into a file _backupd in a
        folder of $fpath. For fish: into ~/.config/fish/completions/backupd.fish.
    """
    from backupd.cli.app import make_app

    app = make_app(lambda context, app, tokens: 0)
    sys.stdout.write(app.meta.generate_completion(prog_name="backupd", shell=shell))
    return 0
