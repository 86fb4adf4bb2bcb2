"""Mailboxes for local folders: names as an IMAP server would have them, and what they are for."""

from __future__ import annotations

from collections.abc import Sequence

from backupd.mail.names import encode_utf7
from backupd.model import Mailbox

DELIMITER = b"/"

_USES: dict[str, bytes] = {
    name: use
    for use, names in {
        b"\\Sent": "sent|sent mail|sent items|sent messages|sent-mail|gesendet|gesendete objekte|gesendete elemente|"
        "envoyés|messages envoyés|éléments envoyés|enviados|elementos enviados|posta inviata|inviata|verzonden|"
        "verzonden items|skickat|sendt|lähetetyt|wysłane|отправленные|送信済み|送信済みアイテム|已发送|已发送邮件",
        b"\\Drafts": "drafts|draft|entwürfe|brouillons|borradores|bozze|concepten|utkast|kladder|luonnokset|"
        "szkice|rascunhos|черновики|下書き|草稿",
        b"\\Trash": "trash|deleted items|deleted messages|bin|papierkorb|gelöschte elemente|gelöschte objekte|"
        "corbeille|éléments supprimés|papelera|elementos eliminados|cestino|posta eliminata|prullenbak|"
        "verwijderde items|"
        "papperskorg|papirkurv|roskakori|kosz|lixeira|корзина|удаленные|ゴミ箱|削除済みアイテム|已删除邮件|垃圾箱",
        b"\\Junk": "junk|junk e-mail|junk email|junk mail|spam|bulk mail|courrier indésirable|pourriel|"
        "correo no deseado|posta indesiderata|ongewenste e-mail|ongewenst|skräppost|roskaposti|спам|迷惑メール|"
        "垃圾邮件",
        b"\\Archive": "archive|archives|archiv|archivo|archivio|archief|arkiv|arkisto|archiwum|arquivo|архив|"
        "アーカイブ|归档",
    }.items()
    for name in names.split("|")
}


def mailbox(levels: Sequence[str], *, special_use: bytes | None = None, subscribed: bool = True) -> Mailbox:
    """The mailbox for a folder, level by level as people read it; ("INBOX",) or any spelling of it is the INBOX,
    and what is below any spelling of it is below the INBOX.

    special_use: what the store says it is for; None to tell by the names that mail programs give in their languages.
    An empty one means: for nothing special.
    """
    levels = [level or "_" for level in levels] or ["INBOX"]
    if levels[0].casefold() in ("inbox", "posteingang"):
        levels[0] = "INBOX"
    raw = DELIMITER.join(encode_utf7(level.replace("/", "%2F")) for level in levels)
    use = special_use
    if use is None:
        use = _USES.get(levels[-1].casefold(), b"") if len(levels) == 1 else b""
    return Mailbox(
        raw_name=raw,
        name="/".join(levels),
        delimiter=DELIMITER,
        special_use=(use,) if use else (),
        subscribed=subscribed,
    )
