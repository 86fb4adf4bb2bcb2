"""Two machines and one bucket: commands that run at the same time, each with a state directory of its own. Nothing is
lost, and every snapshot of both comes back byte for byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.support.command import Place, imap, mail_of
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

ROUNDS = 3


class Machine(Place):
    """A machine with a configuration and a state of its own, whose repository is in the bucket of all."""

    def use_bucket(self, server: SeaweedFS, bucket: str, accounts: dict[str, Account]) -> None:
        """Write the configuration; the copy is to be made in a folder."""
        self.folder.mkdir(exist_ok=True)
        self.configure({name: imap(account) for name, account in accounts.items()})
        self.secrets.add(SECRET_KEY)
        document = msgspec.json.decode(self.config.read_bytes())
        document["repository"]["url"] = f"s3://{bucket}/mail"
        document["repository"]["s3"] = {
            "endpoint_url": server.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY, "retry_for": "20s",
        }  # fmt: skip
        document["copies"] = [{"url": str(self.folder / "copy")}]
        self.config.write_bytes(msgspec.json.encode(document))


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "first"), Machine(tmp_path / "second")


def news(round_: int, who: str) -> list[bytes]:
    """Some small messages, and a large one that both accounts get."""
    shared = message(f"To all {round_}", attachments=[Attachment("all.bin", noise(round_, 300_000))])
    return [shared, *(message(f"{who} {round_} {number}") for number in range(10))]


def at_the_same_time(machines: tuple[Machine, Machine], *, copying: bool) -> None:
    """Both back up at once, and one of them copies meanwhile where asked for; none of it fails or complains."""
    running = [(machine, machine.start("backup")) for machine in machines]
    if copying:
        running.append((machines[0], machines[0].start("copy")))
    for machine, process in running:
        result = machine.end(process)
        assert (result.code, result.err) == (0, ""), result


@pytest.mark.parametrize("copying", [False, True], ids=["", "while copying"])
@pytest.mark.parametrize("same", [True, False], ids=["one account", "an account each"])
def test_two_machines_write_to_one_bucket_at_once(
    machines: tuple[Machine, Machine], dovecot: Dovecot, seaweedfs: SeaweedFS, *, same: bool, copying: bool
) -> None:
    accounts = [dovecot.account()] * 2 if same else [dovecot.account(), dovecot.account()]
    labels = ["alice", "alice" if same else "bob"]
    bucket = seaweedfs.bucket()
    for machine, name, account in zip(machines, labels, accounts, strict=True):
        machine.use_bucket(seaweedfs, bucket, {name: account})
    assert machines[0].run("init").code == 0
    held: list[dict[str, Counter[str]]] = []
    for round_ in range(ROUNDS):
        for name, account in dict(zip(labels, accounts, strict=True)).items():
            account.append_many("INBOX", news(round_, name))
        held.append({name: mail_of(account) for name, account in zip(labels, accounts, strict=True)})
        at_the_same_time(machines, copying=copying)

    snapshots = machines[1].snapshots()
    assert {each["account"] for each in snapshots} == set(labels)
    for each in snapshots:
        messages = machines[1].restored(str(each["id"]))
        assert messages in [state[str(each["account"])] for state in held], each
    for name in set(labels):
        assert machines[0].restored(f"{name}@latest") == held[-1][name]
    if copying:
        machines[0].done("copy", "--quiet")
        for name in set(labels):
            folder = machines[0].folder / f"from-copy-{name}"
            machines[0].done("restore", f"{name}@latest", f"eml:{folder}", "--copy", "1", "--quiet")
            assert len(list(folder.rglob("*.eml"))) == held[-1][name].total()


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_that_make_the_repository_at_once_one_wins_and_the_other_is_told(
    machines: tuple[Machine, Machine], account: Account, seaweedfs: SeaweedFS, attempt: int
) -> None:
    account.append("INBOX", message(f"Attempt {attempt}"))
    bucket = seaweedfs.bucket()
    for machine in machines:
        machine.use_bucket(seaweedfs, bucket, {"alice": account})

    results = [machine.end(process) for machine, process in [(each, each.start("init")) for each in machines]]

    assert sorted(result.code for result in results) == [0, 2]
    machines[0].clear(next(each for each in results if each.code), saying=["there is a repository already"])
    keys = [info["Key"] for info in seaweedfs.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert sum(key.startswith("mail/keys/") for key in keys) == 1, "the loser's key slot is gone"
    machines[1].done("backup")
    assert machines[0].restored("alice@latest") == mail_of(account)
