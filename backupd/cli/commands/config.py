"""`backupd config check|schema`."""

from __future__ import annotations

from backupd.cli import output
from backupd.cli.context import Here


def check_command(*, without_secrets: bool = False, context: Here) -> int:
    """Check the configuration and every secret it refers to. Nothing is connected to.

    Parameters
    ----------
    without_secrets
        Check the file alone, and fetch no secret.
    """
    from backupd.config import check_secrets
    from backupd.operations.doctor_pop3 import forewarnings

    names = list(context.config.accounts)
    if not without_secrets:
        check_secrets(context.config)
        if context.config.notify or context.config.pings:
            from backupd.operations.notify import check

            check(context.config)
    warnings = context.config.warnings()
    for name, account in context.config.accounts.items():
        if pop3 := account.pop3:
            deletes = pop3.delete_after is not None
            known = forewarnings(f"account {name}", pop3.host, pop3.username, deletes=deletes)
            warnings += [f"{each.subject}: {each.what} ({each.remedy})" for each in known]
    if context.json:
        output.document({"valid": True, "accounts": names, "warnings": warnings})
    said = output.count(len(names), "account")
    context.say(f"{context.config_file}: valid, {said}{': ' + ', '.join(names) if names else ''}")
    for warning in warnings:
        output.remark(warning)
    return 0


def schema_command(*, context: Here) -> int:
    """Print the JSON Schema of the configuration, for editors that check YAML as it is written."""
    from backupd.config import schema

    output.write_raw(output.encode_indented(schema()) + b"\n")
    return 0
