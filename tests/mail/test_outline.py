"""The outline of messages, also of those that are not well-formed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.mail.outline import Part, outline
from tests.support.mail import Attachment, message


def test_the_parts_of_a_message_with_an_attachment() -> None:
    raw = message("Plan", b"Hello\r\n", attachments=[Attachment("plan.pdf", b"x" * 57, "application/pdf")])
    seen = outline([raw])
    assert [(part.depth, part.content_type, part.filename) for part in seen.parts] == [
        (0, "multipart/mixed", ""),
        (1, "text/plain", ""),
        (1, "application/pdf", "plan.pdf"),
    ]
    assert (b"Subject", b"Plan") in seen.header


def test_a_forwarded_message_is_shown_with_its_own_parts() -> None:
    inner = message("Inner", attachments=[Attachment("a.bin", b"y")])
    seen = outline([b"Subject: Fwd\r\nContent-Type: message/rfc822\r\n\r\n", inner])
    assert [part.content_type for part in seen.parts] == [
        "message/rfc822",
        "multipart/mixed",
        "text/plain",
        "application/octet-stream",
    ]
    assert seen.header == [(b"Subject", b"Fwd"), (b"Content-Type", b"message/rfc822")]


def test_a_plain_message_is_one_part_with_the_octets_of_its_body() -> None:
    assert outline([b"Subject: a\n b\n\nbody\n"]).parts == [Part(0, "text/plain", "", "", 5)]
    assert outline([b"Subject: a\n b\n\nbody\n"]).header == [(b"Subject", b"a b")]


def test_a_message_without_a_body_still_has_its_header() -> None:
    assert outline([b"Subject: only this\r\nContent-Type: message/rfc822\r\n"]).header[0] == (b"Subject", b"only this")


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"--b", b"--b--", b"Content-Type: multipart/mixed; boundary=b", b"", b"x", b"\xff:"])),
       st.integers(1, 40))  # fmt: skip
def test_whatever_comes_gives_the_same_outline_in_chunks_of_any_size(lines: list[bytes], size: int) -> None:
    raw = b"\r\n".join(lines)
    whole = outline([raw])
    assert outline([raw[start : start + size] for start in range(0, len(raw), size)]) == whole
    assert sum(part.octets for part in whole.parts if part.depth == 0) <= len(raw)
