"""OAuth2 on the command line, from a login on a phone to mail in the repository: real provider, real mail server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from backupd import config
from backupd.oauth.store import Logins
from backupd.operations import auth
from backupd.operations.auth import Person
from backupd.operations.opening import open_logins
from backupd.repository.repository import create
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.cli.conftest import Result, Run
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.oauth import LoginProcess, everything_below, grow_older
from tests.support.oidc_provider import Client, OidcProvider, browse

MAILS = [message(f"Message {number}") for number in range(4)]
PASSPHRASE = "correct horse battery"
NAMES = ("alice", "bearer", "bob")


@pytest.fixture
def account(token_dovecot: Dovecot) -> Account:
    """An account with some mail, on a server that takes the provider's tokens."""
    made = token_dovecot.account()
    made.deliver("INBOX", MAILS)
    return made


@pytest.fixture
def client(provider: OidcProvider, account: Account) -> Client:
    return provider.client(account.username)


@pytest.fixture
def configured(provider: OidcProvider, account: Account, client: Client, tmp_path: Path) -> Path:
    """alice by IMAP, whatever the server offers; bearer insists on OAUTHBEARER; bob is the same mail by POP3."""
    path = tmp_path / "config.yaml"
    oauth2 = {"issuer": provider.issuer, "client_id": client.client_id}
    shared: dict[str, Any] = {"host": "127.0.0.1", "tls": "none", "username": account.username, "oauth2": oauth2}
    imap = {"imap": {**shared, "port": account.port}}
    document = {
        "state_dir": "state",
        "repository": {"url": "repository", "passphrase": PASSPHRASE},
        "accounts": {
            "alice": {"imap": {**imap["imap"], "authentication": "xoauth2"}},
            "bearer": {"imap": {**imap["imap"], "authentication": "oauthbearer"}},
            "bob": {"pop3": {**shared, "port": account.server.ports.pop3}},
        },
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    create(LocalStorage(tmp_path / "repository"), PASSPHRASE, argon2=Argon2(1, 8, 1))
    return path


def logins(configured: Path) -> Logins:
    return open_logins(config.load(configured))


def done(result: Result, code: int = 0) -> Result:
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    return result


def log_in(provider: OidcProvider, environment: dict[str, str], folder: Path, account: str) -> str:
    """As somebody who has a phone at hand; what standard output said."""
    process = LoginProcess(environment, folder, account, "--device")
    provider.enter(process.until(r"^ +([A-Z]{4}-[A-Z]{4})$"))
    code, out, err = process.end()
    assert code == 0, err
    return out


def logged_in(provider: OidcProvider, configured: Path) -> None:
    """As if alice had logged in before."""
    person = Person(tell=lambda told: provider.enter(told.code), not_it=print, wait=lambda seconds: False)  # type: ignore[union-attr]
    auth.login(config.load(configured), "alice", person, way="device")


def no_secrets_in(provider: OidcProvider, folder: Path, *outputs: str) -> None:
    """Nothing that the provider ever gave is in any file of the state, nor in what was said."""
    texts = [everything_below(folder / "state"), everything_below(folder / "repository")]
    texts += [output.encode() for output in outputs]
    for secret in provider.issued:
        assert not any(secret.encode() in text for text in texts)


def test_from_a_login_on_a_phone_to_mail_in_the_repository(
    run: Run, environment: dict[str, str], configured: Path, provider: OidcProvider, client: Client, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda name: log_in(provider, environment, tmp_path, name), NAMES))
    assert said[0] == f"alice: logged in at {provider.issuer}\n"
    first = done(run("backup"))
    assert first.out.count("4 messages in 1 mailbox") == 3
    assert client.asked["refresh_token"] == 0

    # The access tokens expire, and each refresh takes a new refresh token, for the old one is used up.
    old = {name: logins(configured).read(name) for name in NAMES}
    for name in old:
        grow_older(logins(configured), name, timedelta(hours=2))
    second = done(run("backup"))
    assert client.asked["refresh_token"] == 3
    for name, login in old.items():
        now = logins(configured).read(name)
        assert login is not None
        assert now is not None
        assert now.tokens.refresh_token != login.tokens.refresh_token
        assert provider.refreshable[login.tokens.refresh_token].used

    status = done(run("auth", "status"))
    assert status.out.splitlines()[1].split()[:2] == ["alice", provider.issuer]
    doctor = done(run("doctor"))
    assert f"somebody logged in at {provider.issuer} on" in doctor.out
    no_secrets_in(provider, tmp_path, first.out, first.err, second.out, second.err, status.out, doctor.out, *said)

    out = done(run("auth", "logout", "alice"))
    assert out.out == "alice: logged out; the provider knows the login no more\n"
    before = done(run("backup", "alice"), 1)
    assert before.err == "backupd: alice: nobody has logged in yet (run: backupd auth login alice)\n"


def test_a_login_by_a_browser_elsewhere_is_pasted(
    run: Run, environment: dict[str, str], configured: Path, provider: OidcProvider, tmp_path: Path
) -> None:
    process = LoginProcess(environment, tmp_path, "alice", "--redirect", "--json")
    address = process.until(r"^ +(http\S+/authorize\S+)$")
    led_to = browse(address)
    process.until(r"(Ctrl-C)")
    process.paste("https://example.com/")
    process.paste(led_to)

    code, out, err = process.end()

    assert code == 0, err
    assert json.loads(out)["account"] == "alice"
    assert "this is not the address that the login page led to" in err
    assert urlsplit(led_to).query.split("code=")[1].split("&")[0] not in err
    assert "4 messages" in done(run("backup", "alice")).out
    no_secrets_in(provider, tmp_path, out, err)


WAYS = {"alice": "--device", "bob": "--redirect"}


def test_ctrl_c_gives_a_login_up(
    run: Run, environment: dict[str, str], configured: Path, provider: OidcProvider, tmp_path: Path
) -> None:
    processes = [LoginProcess(environment, tmp_path, name, way) for name, way in WAYS.items()]
    for process in processes:
        process.until(r"(Ctrl-C)")
        process.interrupt()
    for process in processes:
        code, _, err = process.end()
        assert code == 130
        assert "Traceback" not in err


def test_a_login_that_the_provider_ended_is_one_line_with_what_mends_it(
    run: Run, environment: dict[str, str], configured: Path, provider: OidcProvider, client: Client, tmp_path: Path
) -> None:
    logged_in(provider, configured)
    provider.log_out(client)
    grow_older(logins(configured), "alice", timedelta(hours=1))

    failed = run("backup", "alice", "--debug")

    assert failed.code == 1
    assert "invalid_grant" in failed.err
    assert "run: backupd auth login alice" in failed.err
    no_secrets_in(provider, tmp_path, failed.out, failed.err)
    (stands,) = json.loads(done(run("auth", "status", "alice", "--json")).out)
    assert "the provider has refused the login since" in stands["warnings"][0]["what"]
    said = done(run("doctor"), 1).out
    assert said.count("run: backupd auth login alice") == 1



@contextmanager
def stalling(port: int, event: threading.Event) -> Iterator[int]:
    """A relay to a port, which sets the event when an access token has come, and hands it on to nobody."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # one side has gone, or the relay is at its end
            while data := source.recv(65536):
                if b"AUTHENTICATE" in data:
                    event.set()
                    return
                sink.sendall(data)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            sockets.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for each in (listener, *sockets):
            each.close()


def test_a_kill_between_rotation_and_use_loses_nothing(
    run: Run, environment: dict[str, str], configured: Path, provider: OidcProvider, client: Client, account: Account,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The new access token is on its way to the mail server when the machine goes down."""
    logged_in(provider, configured)
    grow_older(logins(configured), "alice", timedelta(hours=1))
    whole = configured.read_text()
    sent = threading.Event()
    with stalling(account.port, sent) as port:
        configured.write_text(whole.replace(f'"port": {account.port}', f'"port": {port}'))
        process = subprocess.Popen(
            [sys.executable, "-m", "backupd", "backup", "alice"], env=environment, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert sent.wait(60)
        process.kill()
        process.wait()
    assert client.asked["refresh_token"] == 1

    configured.write_text(whole)
    assert "4 messages" in done(run("backup", "alice")).out
    assert client.asked["refresh_token"] == 1, "what was had before is used"
    grow_older(logins(configured), "alice", timedelta(hours=1))
    done(run("backup", "alice"))
    assert client.asked["refresh_token"] == 2, "and the login goes on"


def test_help_and_status_load_no_library_for_it(environment: dict[str, str], configured: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from backupd.cli.main import main; main(sys.argv[1:]);"
        "sys.exit(bool({'authlib', 'httpx2', 'joserfc'} & set(sys.modules)))"
    )
    for words in (["auth", "--help"], ["auth", "status"]):
        command = [sys.executable, "-c", code, *words]
        assert subprocess.run(command, env=environment, cwd=tmp_path, check=False, capture_output=True).returncode == 0
