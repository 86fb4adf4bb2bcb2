"""Only base64 that has one reading and one spelling is taken for base64."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.base64lines import Encoder, Wrapping, last_line, whole_lines
from tests.support.mail import base64_lines, noise

line_ends = st.sampled_from([b"\r\n", b"\n"])
line_lengths = st.sampled_from([4, 8, 60, 76])


def _regular(buffer: bytes, line_length: int, line_end: bytes) -> int:
    """The same as `whole_lines` by one expression: octets of the buffer that are whole lines."""
    line = rb"(?:[A-Za-z0-9+/]{%d}%s)*" % (line_length, re.escape(line_end))
    match = re.match(line, buffer)
    return match.end() if match else 0


@given(st.integers(0, 3_000), line_lengths, line_ends, st.integers(0, 4_000), st.binary(min_size=1, max_size=4))
def test_whole_lines_are_those_before_the_first_odd_character(
    size: int, line_length: int, line_end: bytes, place: int, odd: bytes
) -> None:
    lines = base64_lines(noise(size, size), line_length, line_end=line_end)
    buffer = lines[:place] + odd + lines[place + len(odd) :]

    found = whole_lines(buffer, line_length, line_end)

    assert found.size == _regular(buffer, line_length, line_end)
    assert found.octets == base64.b64decode(buffer[: found.size].replace(line_end, b""))
    assert whole_lines(b"AAAA\n" + buffer + b"AAAA", line_length, line_end, 5, 5 + len(buffer)) == found


@pytest.mark.parametrize(
    "odd", [rb"\u0041", rb"\/AAAAAA", rb"\n", b'"', b'"AAA', b' "', b"AA==", b"A===", b"\0", b"\xff"]
)
@pytest.mark.parametrize("line", [0, 1, 70, 199])
def test_what_a_decoder_may_pass_over_is_no_base64(odd: bytes, line: int) -> None:
    lines = base64_lines(noise("json", 200 * 57))
    buffer = lines[: line * 78] + odd + lines[line * 78 + len(odd) :]

    assert whole_lines(buffer, 76, b"\r\n").size == line * 78


@given(st.binary(max_size=100), st.integers(0, 76))
def test_a_last_line_is_taken_only_with_the_characters_it_gives_again(line: bytes, longest: int) -> None:
    found = last_line(line, longest)

    if found is not None:
        octets, padding, used = found
        assert used <= longest
        assert base64.b64encode(octets).rstrip(b"=") + b"=" * padding == line[:used]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"QQ==", (b"A", 2, 4)),
        (b"QQ=\r\n", (b"A", 1, 3)),
        (b"QQ", (b"A", 0, 2)),
        (b"QQ===", (b"A", 2, 4)),
        (b"QUJD\r\n--", (b"ABC", 0, 4)),
        (b"QR==", None),
        (b"Q", None),
        (b"QUJDQ===", None),
        (b"--b", None),
        (b"", None),
    ],
)
def test_a_last_line_may_lack_padding_but_not_have_stray_bits(line: bytes, found: object) -> None:
    assert last_line(line, 76) == found


@pytest.mark.parametrize("line_length", [0, 4, 76, 4092])
def test_a_piece_larger_than_what_is_encoded_at_once_is_wrapped_without_a_seam(line_length: int) -> None:
    octets = noise("seam", 2_000_000)
    text = base64.b64encode(octets)
    whole = b"\n".join(text[at : at + line_length] for at in range(0, len(text), line_length)) if line_length else text

    encoder = Encoder(Wrapping(line_length, b"\n"))

    assert encoder.encode(octets[:1_234_567]) + encoder.encode(octets[1_234_567:]) + encoder.end(1) == whole
