"""The command line: which commands there are, and where each is found.

Commands are named here by import path and imported when they are called, so `backupd --help` stays quick. The global
options are taken before or after the command's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from backupd import __version__
from backupd.cli.context import Context

_BACK_UP = Group("Back up and restore", sort_key=1)
_LOOK = Group("Look", sort_key=2)
_CARE = Group("Set up and care", sort_key=3)
_OWN = Group("Options", sort_key=8)
_GLOBAL = Group("Options of every command", sort_key=9)

COMMANDS = (
    ("init", _CARE, "Make the repository and print the recovery kit."),
    ("doctor", _CARE, "Check configuration, logins, TLS, repository and clock, and say what to mend."),
    ("config", _CARE, "Check the configuration; print its JSON Schema."),
    ("auth", _CARE, "Log accounts in by OAuth2 (Google, Microsoft and others), and tell how long that holds."),
    ("key", _CARE, "List, add, remove, rotate and export keys of the repository."),
    ("systemd", _CARE, "Put the service's units in place, take them away, show them."),
    ("s3-policy", _CARE, "Print the least rights that a role needs in the repository's bucket."),
    ("notify", _CARE, "Show who is told of trouble, and what trouble is open; try whether messages arrive."),
    ("completion", _CARE, "Print the completion script of a shell."),
    ("backup", _BACK_UP, "Take a snapshot of accounts now."),
    ("import", _BACK_UP, "Take in mail from local files: mbox, Maildir, Thunderbird, Takeout, .eml and more."),
    ("restore", _BACK_UP, "Write a snapshot's mail to a server or to files."),
    ("copy", _BACK_UP, "Make the configured copies equal to the repository; needs no key."),
    ("forget", _CARE, "Remove snapshots that no rule of retention, no hold and no pin keeps."),
    ("hold", _CARE, "Keep snapshots from being forgotten; accept a sudden loss."),
    ("prune", _CARE, "Free what no snapshot needs, and make few large objects of many small ones."),
    ("erase", _CARE, "Take a person's messages out of every snapshot for good, and say why they are gone."),
    ("audit", _CARE, "Prove that what is stored can be restored; for people, cron and monitors."),
    ("record", _CARE, "Show the signed record of what was done to the repository; export what proves it."),
    ("repair", _CARE, "Mend what is damaged or missing, from copies, versions, parity and mail servers."),
    ("demo", _BACK_UP, "Show the whole cycle on a mailbox of its own; needs no configuration."),
    ("snapshots", _LOOK, "List snapshots."),
    ("ls", _LOOK, "List a snapshot's mailboxes, or the messages of one."),
    ("show", _LOOK, "Show a message: its header and parts, or its exact bytes."),
    ("diff", _LOOK, "Show what changed between two snapshots."),
    ("run", _BACK_UP, "Run as a daemon: snapshots on schedule, care for the repository, word of trouble."),
    ("trigger", _BACK_UP, "Have the daemon back up accounts now."),
    ("status", _LOOK, "Show for each account when it was backed up last, what is wrong, and what the daemon does."),
)

_MODULES = {"import": "import_mail"}
"""Modules of commands whose names are no names in Python."""

SUBCOMMANDS = {
    "auth": (
        ("login", "Have somebody log in, on another device or by a browser, and keep the login."),
        ("status", "Show when which login ends, and what to do about it."),
        ("logout", "Revoke a login where the provider can, and forget it."),
    ),
    "hold": (
        ("add", "Keep a snapshot, or all of an account, from being forgotten."),
        ("list", "List what keeps snapshots from being forgotten."),
        ("remove", "End a hold."),
        ("accept-loss", "Say that the sudden losses of an account are meant, so that they pin no snapshot any more."),
    ),
    "record": (
        ("list", "List what was done to the repository, the latest last."),
        ("export", "Write the public key and the last entries, to be kept elsewhere and compared by `audit --record`."),
        ("accept", "Say that what the record and the repository disagree about has been looked into."),
    ),
    "config": (
        ("check", "Check the configuration and every secret it refers to."),
        ("schema", "Print the JSON Schema of the configuration, for editors."),
    ),
    "key": (
        ("list", "List the key slots."),
        ("add", "Add a key slot, opened by a new key file or by a passphrase."),
        ("remove", "Remove a key slot: what opened it opens nothing any more."),
        ("rotate", "Give a key slot another key file or passphrase."),
        ("export", "Write the secrets themselves, to be kept offline."),
    ),
    "systemd": (
        ("install", "Put the units in place, made to fit this machine and its configuration."),
        ("uninstall", "Stop the service, and take away the files that were put in place."),
        ("show", "Print the files that `install` puts in place."),
    ),
}


def make_app(run: Callable[[Context, App, list[str]], int]) -> App:
    """The application. run(context, app, tokens) is called with the global options taken out of the tokens."""
    app = App(
        name="backupd",
        help="Backup and disaster recovery for e-mail: incremental, deduplicated, encrypted, and proved to restore.",
        version=f"backupd {__version__}",
        help_format="plaintext",
        default_parameter=Parameter(negative=()),
    )
    for place, (name, group, text) in enumerate(COMMANDS):
        if name in SUBCOMMANDS:
            sub = App(name=name, help=text, group=group, group_parameters=_OWN, sort_key=place)
            for order, (verb, what) in enumerate(SUBCOMMANDS[name]):
                function = f"{verb.replace('-', '_')}_command"
                sub.command(f"backupd.cli.commands.{name}:{function}", name=verb, help=what, sort_key=order)
            app.command(sub)
        else:
            module = f"backupd.cli.commands.{_MODULES.get(name, name.replace('-', '_'))}"
            app.command(f"{module}:command", name=name, group=group, group_parameters=_OWN, help=text, sort_key=place)
    app["--help"].group = app["--version"].group = _GLOBAL
    app.meta.group_parameters = _GLOBAL

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[
            Path | None,
            Parameter(help="The configuration file; else $BACKUPD_CONFIG, then /etc/backupd/config.yaml."),
        ] = None,
        copy: Annotated[
            str | None,
            Parameter(help="Work on this copy of the repository instead: its address in the configuration, or number."),
        ] = None,
        json: Annotated[bool, Parameter(help="One JSON document on standard output.", show_default=False)] = False,
        quiet: Annotated[
            bool,
            Parameter(
                name=["--quiet", "-q"],
                help="No progress, remarks and summaries; problems are told.",
                show_default=False,
            ),
        ] = False,
        debug: Annotated[bool, Parameter(help="A traceback with every error.", show_default=False)] = False,
    ) -> Any:
        return run(Context(config, json, debug, quiet, copy), app, list(tokens))

    return app
