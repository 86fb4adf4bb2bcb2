"""What the demo shows: snapshots, three disasters, the restore, the proof. Each command is the real one."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from backupd.cli import output
from backupd.cli.context import Context
from backupd.cli.demo.mailbox import Seen, User
from backupd.cli.demo.server import Login, running
from backupd.errors import BackupdError

_BACKUPD = [sys.executable, "-m", "backupd"]
LOST, REBUILT = "Family/Holidays", "Work"


class Story:
    """Tells, does, and keeps what was done for --json."""

    def __init__(self, context: Context, config: Path) -> None:
        self._context, self._environment = context, {**os.environ, "BACKUPD_CONFIG": str(config)}
        self._console = output.console()
        self.steps: list[dict[str, object]] = []

    def chapter(self, title: str) -> None:
        """What happens next."""
        if not self._context.json:
            self._console.print(f"\n{title}", style="bold")

    def say(self, text: str, style: str = "") -> None:
        """What has happened."""
        if not self._context.json:
            self._console.print(text, style=style)

    def command(self, *words: str) -> None:
        """Do what a user would type, as a process of its own. Raises BackupdError when it fails."""
        if not self._context.json:
            self._console.print(f"$ backupd {' '.join(words)}", style="cyan")
            sys.stdout.flush()
            done = subprocess.run([*_BACKUPD, *words], env=self._environment, check=False)
        else:
            asked = [*_BACKUPD, "--json", *words]
            done = subprocess.run(asked, env=self._environment, check=False, stdout=subprocess.PIPE)
            answer = json.loads(done.stdout)
            self.steps.append({"command": list(words), "exit_code": done.returncode, "answer": answer})
        if done.returncode:
            raise BackupdError(f"`backupd {words[0]}` ended with {done.returncode}")

    def init(self) -> None:
        """Make the repository; the recovery kit it prints is for real ones."""
        subprocess.run([*_BACKUPD, "init"], env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def snapshots(self) -> list[str]:
        """Short ids of the snapshots so far, oldest first."""
        done = subprocess.run(
            [*_BACKUPD, "--json", "snapshots", "demo"], env=self._environment, check=True, stdout=subprocess.PIPE
        )
        found = sorted(json.loads(done.stdout), key=lambda each: str(each["time"]))
        return [str(each["id"])[-8:] for each in found]


def tell(context: Context) -> int:
    """The demo; its exit code."""
    began = time.monotonic()
    with running() as login, User(login) as user, tempfile.TemporaryDirectory(prefix="backupd-demo-") as folder:
        story = Story(context, _configure(Path(folder), login))
        story.chapter("A mail account of its own, on this machine and for this minute")
        user.settle_in()
        story.say(f"{len(user.look())} messages in 5 mailboxes")
        story.init()

        story.chapter("The first snapshot takes everything, the second only what changed")
        story.command("backup")
        user.an_ordinary_day()
        story.command("backup")
        good, before = user.look(), story.snapshots()[-1]

        story.chapter("Three disasters at once")
        gone = user.delete_half_the_inbox()
        story.say(f"- {gone} messages are deleted from INBOX, on a phone, by mistake")
        user.delete_a_mailbox(LOST)
        story.say(f"- the mailbox {LOST} is deleted with all that is in it")
        user.rebuild(REBUILT)
        story.say(f"- the server rebuilds {REBUILT}: the same mail under other UIDs (UIDVALIDITY changes)")
        story.command("backup")
        story.command("diff", before, "demo@latest")

        story.chapter("The way back: what is missing, and nothing twice")
        story.command("restore", before, "imap:demo", "--missing-only", "--dry-run")
        story.command("restore", before, "imap:demo", "--missing-only")

        story.chapter("The proof")
        return _prove(story, context, good, user.look(), time.monotonic() - began)


def _prove(story: Story, context: Context, good: list[Seen], now: list[Seen], seconds: float) -> int:
    before, after = Counter(good), Counter(now)
    missing, strange = before - after, after - before
    same = sum((before & after).values())
    if context.json:
        proof = {"messages": len(good), "identical": same, "missing": missing.total(), "more": strange.total()}
        output.document({"steps": story.steps, "proof": proof, "exit_code": 1 if missing or strange else 0})
    for one in [*missing, *strange][:10]:
        story.say(f"differs: {one}", "red")
    if missing or strange:
        return 1
    story.say(f"{same} of {len(good)} messages are back: every byte, flag and date is what it was", "bold green")
    story.say(f"\nIt took {seconds:.0f} seconds, and nothing of it stays behind. For your own mail, write a")
    story.say("configuration (config.example.yaml has every key). Then: backupd doctor, backupd init, backupd backup")
    return 0


def _configure(folder: Path, login: Login) -> Path:
    for name, text in (("passphrase", secrets.token_urlsafe(24)), ("password", login.password)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    config = folder / "config.yaml"
    config.write_text(
        f"""\
state_dir: {folder}/state
repository:
  url: {folder}/repository
  passphrase: {{file: passphrase}}
accounts:
  demo:
    imap:
      {{host: {login.host}, port: {login.port}, tls: none,
       username: {login.username}, password: {{file: password}}}}
"""
    )
    return config
