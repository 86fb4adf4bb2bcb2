"""What the demo shows: snapshots, three disasters, the restore, the proof. Each command is the real one."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backupd.cli import output
from backupd.cli.context import INTERRUPTED, Context
from backupd.cli.demo.mailbox import User
from backupd.cli.demo.proof import Proof, compare
from backupd.cli.demo.server import Login, running
from backupd.errors import BackupdError, Interrupted

LOST, REBUILT = "Family/Holidays", "Work"
_FEW = 10


class Story:
    """Tells, does, and keeps what was done for --json. folder: where the configuration and the repository are."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._silent = context.json or context.quiet
        self._console = output.console()
        self._tick = "✓" if self._console.encoding.startswith("utf") else "ok:"
        self.began = time.monotonic()
        self.steps: list[dict[str, object]] = []

    def chapter(self, title: str) -> None:
        """What happens next."""
        self.say(f"\n{title}", "bold")

    def say(self, text: str, style: str = "") -> None:
        """What has happened."""
        if not self._silent:
            self._console.print(text, style=style)

    def done(self, text: str) -> None:
        """A step is done, and what came of it."""
        self.say(f"{self._tick} {text}", "green")

    def command(self, *words: str) -> float:
        """Do what a user would type; how many seconds it took. Raises BackupdError when it fails."""
        began = time.monotonic()
        answer = None
        if self._silent:
            answer = self.ask(*words)
        else:
            self.say(f"$ backupd {' '.join(words)}", "cyan")
            self._run(*words)
        seconds = time.monotonic() - began
        self.steps.append({"command": list(words), "seconds": round(seconds, 3), "answer": answer})
        return seconds

    def ask(self, *words: str) -> Any:
        """What the command answers to a program, as the value of its JSON. Raises BackupdError when it fails."""
        return json.loads(self._captured("--json", *words))

    def init(self) -> None:
        """Make the repository; the recovery kit it prints is for real ones."""
        self._captured("init")

    def _captured(self, *words: str) -> bytes:
        with io.BytesIO() as kept, io.TextIOWrapper(kept, encoding="utf-8") as stream:
            with contextlib.redirect_stdout(stream):
                self._run(*words)
            stream.flush()
            return kept.getvalue()

    def _run(self, *words: str) -> None:
        """The command as it is run from a shell, in this process."""
        from backupd.cli.main import BROKEN_PIPE, main

        wanted = {"--quiet": self._context.quiet, "--debug": self._context.debug}
        options = [option for option, given in wanted.items() if given]
        code = main(["--config", str(self._folder / "config.yaml"), *options, *words])
        if code == INTERRUPTED:
            raise Interrupted("the demo was interrupted", remedy="nothing of it stays behind")
        if code == BROKEN_PIPE:
            raise BrokenPipeError
        if code:
            raise BackupdError(f"`backupd {' '.join(words)}` ended with exit code {code}")

    def stored(self) -> int:
        """Octets of the repository, keys and all."""
        return sum(path.stat().st_size for path in (self._folder / "repository").rglob("*") if path.is_file())


def tell(context: Context) -> int:
    """The demo; its exit code: 0 when the proof holds, 1 when it does not."""
    # In the order it happened, also where standard error goes the same way and nobody sits at a terminal.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="backupd-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        story = Story(context, folder)
        with running(folder) as login, User(login) as user:
            _configure(folder, login)
            proof = _tell(story, user)
    if context.json:
        output.document(
            {
                "steps": story.steps,
                "proof": {
                    "messages": proof.messages,
                    "identical": proof.identical,
                    "missing": [each._asdict() for each in proof.missing],
                    "more": [each._asdict() for each in proof.more],
                },
                "exit_code": 0 if proof.holds else 1,
            }
        )
    return 0 if proof.holds else 1


def _tell(story: Story, user: User) -> Proof:
    story.chapter("A mail account of its own, on this machine and for this minute")
    user.settle_in()
    at_first = user.look()
    octets = sum(each.size for each in at_first)
    story.done(f"{len(at_first)} messages in {len({each.mailbox for each in at_first})} mailboxes")
    story.init()

    story.chapter("The first snapshot takes everything, the second only what changed")
    seconds = story.command("backup")
    stored = story.stored()
    story.done(f"{output.size(octets)} of mail are {output.size(stored)} in the repository; {seconds:.1f} s")
    user.an_ordinary_day()
    seconds = story.command("backup")
    story.done(f"new mail and other flags cost {output.size(story.stored() - stored)}; {seconds:.1f} s")
    good, before = user.look(), story.ask("snapshots", "demo")[-1]["id"][-8:]

    story.chapter("Three disasters at once")
    gone = user.delete_half_the_inbox()
    story.say(f"- {gone} messages are deleted from INBOX, on a phone, by mistake")
    user.delete_a_mailbox(LOST)
    story.say(f"- the mailbox {LOST} is deleted with all that is in it")
    user.rebuild(REBUILT)
    story.say(f"- the server rebuilds {REBUILT}: the same mail, other UIDs (UIDVALIDITY changes)")
    seconds = story.command("backup")
    story.done(f"the loss is announced, and the last good snapshot is kept; {seconds:.1f} s")
    story.command("diff", before, "demo@latest")
    changed = story.ask("diff", before, "demo@latest")["mailboxes"]
    story.done(
        f"{sum(len(each['gone']) for each in changed)} messages are gone; {REBUILT} has all "
        f"{sum(each['recognised'] for each in changed)} it had"
    )

    story.chapter("The way back: what is missing, and nothing twice")
    story.command("restore", before, "imap:demo", "--missing-only", "--dry-run")
    story.done("the plan; nothing is changed yet")
    seconds = story.command("restore", before, "imap:demo", "--missing-only")
    story.done(f"restored in {seconds:.1f} s")

    story.chapter("The proof")
    proof = compare(good, user.look())
    _conclude(story, proof)
    return proof


def _conclude(story: Story, proof: Proof) -> None:
    if not proof.holds:
        output.remark(f"demo: {proof.identical} of {proof.messages} messages are identical")
        for what, some in (("missing", proof.missing), ("not there before", proof.more)):
            for each in some[:_FEW]:
                output.remark(f"demo: {what}: {each}")
            if len(some) > _FEW:
                output.remark(f"demo: {what}: and {len(some) - _FEW} more")
        return
    story.done(f"{proof.identical} of {proof.messages} messages are back: every byte, flag and date is what it was")
    story.say(
        f"\nIt took {time.monotonic() - story.began:.0f} seconds, and nothing of it stays behind. For your own mail,"
    )
    story.say("write a configuration (config.example.yaml has every key), and then:")
    for words in ("init", "doctor", "backup"):
        story.say(f"$ backupd {words}", "cyan")


def _configure(folder: Path, login: Login) -> None:
    for name, text in (("passphrase", secrets.token_urlsafe(24)), ("password", login.password)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    (folder / "config.yaml").write_text(
        f"""\
state_dir: {json.dumps(f"{folder}/state")}
repository:
  url: {json.dumps(f"{folder}/repository")}
  passphrase: {{file: passphrase}}
accounts:
  demo:
    imap:
      {{host: {login.host}, port: {login.port}, tls: none,
       username: {login.username}, password: {{file: password}}}}
"""
    )
