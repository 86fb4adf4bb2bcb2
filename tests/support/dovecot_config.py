"""Configuration of the Dovecot that tests talk to (Dovecot 2.3): all below one folder, and nothing needs root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CAPABILITIES = (
    "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS "
    "THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED "
    "I18NLEVEL=1 CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY "
    "PREVIEW=FUZZY PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE QUOTA"
).split()
"""What Dovecot 2.3 announces after login; `hide` takes from it."""


class Ports(NamedTuple):
    """Where the server listens on loopback. imap and pop3 offer STARTTLS; imaps and pop3s are TLS from the start."""

    imap: int
    imaps: int
    pop3: int
    pop3s: int


def _announced(hide: Sequence[str]) -> str:
    if not hide:
        return ""
    unknown = set(hide) - set(CAPABILITIES)
    if unknown:
        raise ValueError(f"not a capability of this server: {', '.join(sorted(unknown))}")
    return "imap_capability = " + " ".join(name for name in CAPABILITIES if name not in hide)


def configuration(
    state: Path, ports: Ports, user: str, group: str, *, hide: Sequence[str] = (), extra: str = ""
) -> str:
    """The text of dovecot.conf."""
    special = "\n".join(
        f"  mailbox {name} {{\n    auto = no\n    special_use = \\{name}\n  }}"
        for name in ("Sent", "Drafts", "Trash", "Junk", "Archive")
    )
    unprivileged = "\n".join(
        f"service {service} {{\n  chroot =\n  user = {user}\n}}"
        for service in ("anvil", "auth", "auth-worker", "stats", "dict", "imap-hibernate")
    )
    return f"""# dovecot 2.3
base_dir = {state}/run
state_dir = {state}/lib
log_path = {state}/dovecot.log
instance_name = backupd-test-{state.name}
listen = 127.0.0.1
protocols = imap pop3
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
first_valid_gid = 1
mail_uid = {user}
mail_gid = {group}
default_vsz_limit = 2G
mail_max_userip_connections = 500
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_chars =
auth_failure_delay = 0 secs
ssl = yes
ssl_cert = <{state}/tls/cert.pem
ssl_key = <{state}/tls/key.pem
ssl_min_protocol = TLSv1.2
mail_fsync = never
mailbox_idle_check_interval = 1 secs
mail_location = sdbox:~/sdbox
mail_plugins = quota acl
imap_id_send = name * version *
pop3_uidl_format = %08Xu%08Xv
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%u {state}/users/%u
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {state}/users/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  prefix =
{special}
}}
protocol imap {{
  mail_plugins = $mail_plugins imap_quota imap_acl
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
  quota_rule = *:storage=0
  acl = vfile
}}
service imap-login {{
  chroot =
  service_count = 0
  process_limit = 4
  client_limit = 1000
  inet_listener imap {{
    port = {ports.imap}
  }}
  inet_listener imaps {{
    port = {ports.imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 500
}}
service pop3-login {{
  chroot =
  service_count = 0
  inet_listener pop3 {{
    port = {ports.pop3}
  }}
  inet_listener pop3s {{
    port = {ports.pop3s}
    ssl = yes
  }}
}}
{unprivileged}
{_announced(hide)}
{extra}
"""
