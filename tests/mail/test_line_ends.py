"""What was filed with LF becomes what it was, however it is cut, and what was not stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.line_ends import canonical, with_crlf
from backupd.model import Body
from backupd.sources.local import body

LINES = st.lists(st.sampled_from([b"", b"a", b"Subject: x", b"\r", b"\rx", b"."]), max_size=12)


def whole(found: bytes | Body) -> bytes:
    return found if isinstance(found, bytes) else b"".join(found.chunks())


@given(LINES)
def test_what_was_filed_with_lf_comes_back(lines: list[bytes]) -> None:
    message = b"Subject: y\r\n" + b"".join(line.rstrip(b"\r") + b"\r\n" for line in lines)

    assert canonical(message.replace(b"\r\n", b"\n")) == message
    assert canonical(message) == message


@given(LINES, st.integers(1, 5), st.integers(0, 60))
def test_pieces_give_the_same(lines: list[bytes], size: int, limit: int) -> None:
    message = b"\n".join(lines)
    chunks = [message[start : start + size] for start in range(0, len(message), size)]
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(body, "IN_MEMORY", limit)
        found = body.body_of(lambda: iter(chunks), exact=False)
        exact = body.body_of(lambda: iter(chunks), exact=True)
        assert whole(found) == canonical(message)
        assert (len(found) if isinstance(found, bytes) else found.size) == len(canonical(message))
        assert whole(exact) == message


def test_lf_among_crlf_gets_what_a_server_would_give_it() -> None:
    assert canonical(b"a: b\n\ntext\r\nmore\n") == b"a: b\r\n\r\ntext\r\nmore\r\n"
    assert canonical(b"a: b\r\n\r\ntext\nmore\r\n") == b"a: b\r\n\r\ntext\nmore\r\n"
    assert b"".join(with_crlf([b"a\r", b"\nb\r"])) == b"a\r\nb\r"
