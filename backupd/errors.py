"""Every error a user can cause or meet, in one tree.

    BackupdError                    exit 1
    ├── UsageError                  exit 2   a command line that cannot be meant; an unknown account or snapshot
    ├── ConfigError                 exit 2   the configuration file, or a secret it refers to
    ├── NoRepository                exit 10
    ├── Busy                        exit 11  another backupd works on the same account
    ├── WrongKey                    exit 12  a passphrase or key that opens nothing, or a role that may not do this
    │   └── KeyMismatch             a key that opens, and is not that of repository.json
    ├── Interrupted                 exit 130
    ├── NoDaemon                    exit 1   none runs, or it does not answer
    ├── Damaged                     exit 1   a stored object is missing, cut or altered
    ├── Erased                      exit 1   mail that somebody has erased
    ├── Forbidden                   exit 1   a hold or a lock forbids it until some time
    ├── StorageError                exit 1
    │   ├── ObjectMissing
    │   ├── ObjectExists
    │   ├── StorageFull
    │   ├── StorageDenied
    │   ├── StorageUnavailable      transient
    │   └── Overtaken               transient
    └── ServerError                 exit 1   a mail server
        ├── ConnectionFailed        transient
        ├── ConnectionLost          transient
        ├── Throttled               transient, exit 3: what is left out now comes when the pause is over
        ├── LoginRefused
        ├── CertificateRefused
        ├── ServerRefused           a command answered NO or BAD
        └── ProtocolError           an answer that no RFC allows

Each carries what happened, to what, and what to do next, so that a skin can show all three in one line. Transient
errors are a type of their own, `Transient`, so that retrying is decided in one place.
"""


class Transient:
    """Mixed into errors that may pass by themselves; the only ones worth another try."""


class BackupdError(Exception):
    """Base of all expected errors.

    Args:
        what: what happened, a sentence without its full stop.
        subject: to what it happened: an account, mailbox, UID, object or file name.
        remedy: what the user can do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, subject: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.subject = subject
        self.remedy = remedy

    def __str__(self) -> str:
        line = f"{self.subject}: {self.what}" if self.subject else self.what
        return f"{line} ({self.remedy})" if self.remedy else line


class UsageError(BackupdError):
    """The command line asks for something that does not exist or cannot be meant."""

    exit_code = 2


class ConfigError(BackupdError):
    """The configuration, or a secret it points to, cannot be used."""

    exit_code = 2


class NoRepository(BackupdError):
    """There is no repository at the configured place."""

    exit_code = 10


class Busy(BackupdError):
    """Another backupd holds what this one needs."""

    exit_code = 11


class WrongKey(BackupdError):
    """The key opens nothing here, or its role does not allow the operation."""

    exit_code = 12


class KeyMismatch(WrongKey):
    """The key is sound, and repository.json is of another one: it was swapped, or the key is another repository's."""


class Interrupted(BackupdError):
    """SIGINT or SIGTERM; what was done so far is kept."""

    exit_code = 130


class NoDaemon(BackupdError):
    """No daemon runs with this state directory, or it does not answer."""


class Damaged(BackupdError):
    """A stored object is missing, cut or altered."""


class Erased(BackupdError):
    """The mail that is asked for was erased, by somebody who said why."""


class Forbidden(BackupdError):
    """A hold, or a lock, keeps what was to be erased."""


class StorageError(BackupdError):
    """The place where the repository lives did not do what was asked."""


class StateDamaged(StorageError):
    """The database of the local state is damaged. It is a cache: nothing of the repository is lost with it."""


class ObjectMissing(StorageError):
    """No object of that name."""


class ObjectExists(StorageError):
    """An object of that name is there already, with other bytes."""


class StorageFull(StorageError):
    """No space left."""


class StorageDenied(StorageError):
    """No permission."""


class StorageUnavailable(StorageError, Transient):
    """The storage cannot be reached or fails for now."""


class Overtaken(StorageError, Transient):
    """What a run goes on from was removed while it stood still; run again, it goes on from what is there."""


class ServerError(BackupdError):
    """A mail server did not do what was asked."""


class ConnectionFailed(ServerError, Transient):
    """No connection could be made.

    Args:
        pause: seconds after which another try may do, where the server says so.
    """

    def __init__(self, what: str, *, subject: str = "", remedy: str = "", pause: float | None = None) -> None:
        super().__init__(what, subject=subject, remedy=remedy)
        self.pause = pause


class ConnectionLost(ServerError, Transient):
    """The connection ended in the middle of something.

    Args:
        waited: whether it was we who ended it, after having waited for the server in vain.
    """

    def __init__(self, what: str, *, subject: str = "", remedy: str = "", waited: bool = False) -> None:
        super().__init__(what, subject=subject, remedy=remedy)
        self.waited = waited


class Throttled(ServerError, Transient):
    """The server, or a limit of our own, wants the account to be left alone for a while.

    What was read is kept, and the next run goes on from there; so it ends as a run does that left mail out.

    Args:
        pause: seconds after which to go on.
        guessed: whether the pause is our guess, which grows as long as the server goes on refusing.
    """

    exit_code = 3

    def __init__(
        self, what: str, *, pause: float, guessed: bool = False, subject: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, subject=subject, remedy=remedy)
        self.pause = pause
        self.guessed = guessed


class LoginRefused(ServerError):
    """The server does not accept the user name, password or token."""


class CertificateRefused(ServerError):
    """The server's certificate is not the expected one, or TLS cannot be had."""


class ServerRefused(ServerError):
    """A tagged NO or BAD.

    Args:
        code: the response code without brackets, upper case, such as b"OVERQUOTA" (RFC 5530); empty if none.
    """

    def __init__(self, what: str, *, code: bytes = b"", subject: str = "", remedy: str = "") -> None:
        super().__init__(what, subject=subject, remedy=remedy)
        self.code = code


class ProtocolError(ServerError):
    """The server sent what no RFC allows, and reading on would be guessing."""
