"""Whether a header says which message it belongs to."""

from __future__ import annotations

import re

_TELLING = re.compile(rb"^(?:message-id|received)[ \t]*:[ \t]*\S", re.IGNORECASE | re.MULTILINE)


def is_distinct(header: bytes) -> bool:
    """Whether no two messages are likely to have this header: it has a Message-ID or a trace of its way.

    Mail without either (drafts, reports of printers, what spam programs send) may differ in the body alone, and a
    message that is taken for another is lost.
    """
    return _TELLING.search(header) is not None
