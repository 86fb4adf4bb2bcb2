"""Names of mailboxes are shown without lying and stored without harm."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.names import (
    LONGEST_COMPONENT,
    UNSAFE,
    decode_utf7,
    display_name,
    encode_utf7,
    path_component,
    path_component_decode,
    split_levels,
)

any_text = st.text(st.characters(exclude_categories=[])) | st.text("%~.:/\\ aCOoNn1&-é\u0301\u202e\0", max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("INBOX", b"INBOX"),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),  # RFC 3501, 5.1.3
        ("R&D", b"R&-D"),
        ("😀", b"&2D3eAA-"),
        ("", b""),
    ],
)
def test_modified_utf7_is_that_of_the_rfc(name: str, raw: bytes) -> None:
    assert encode_utf7(name) == raw
    assert decode_utf7(raw) == name


@given(names)
def test_every_name_survives_modified_utf7(name: str) -> None:
    raw = encode_utf7(name)

    assert decode_utf7(raw) == name
    assert all(0x20 <= octet <= 0x7E for octet in raw)


@given(st.binary() | st.text("&-AGE,+é ").map(str.encode))
def test_what_decodes_is_the_only_spelling_of_its_name(raw: bytes) -> None:
    try:
        name = decode_utf7(raw)
    except ValueError:
        return
    assert encode_utf7(name) == raw


@pytest.mark.parametrize("raw", [b"&", b"A&B", b"&Jjo", b"&AGE-", b"&A-", b"&2D0-", b"&AOl-", b"caf\xe9", b"a\x1b"])
def test_what_is_not_modified_utf7_is_refused_and_shown_as_it_stands(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode_utf7(raw)

    assert display_name(raw) == raw.decode("ascii", "backslashreplace").replace("\x1b", r"\x1b")


def test_a_lone_surrogate_is_no_name_for_a_server() -> None:
    with pytest.raises(ValueError):
        encode_utf7("\ud800")


def test_a_name_in_utf8_is_read_whether_or_not_the_server_announced_it() -> None:
    assert display_name("Entwürfe".encode()) == "Entwürfe"
    assert display_name("Entwürfe & R&AOk-".encode(), utf8=True) == "Entwürfe & R&AOk-"
    assert display_name(b"&AOk-") == "é"
    assert display_name(b"&AOk-", utf8=True) == "&AOk-"


@given(st.binary() | names.map(str.encode) | names.map(encode_utf7), st.booleans())
def test_any_octets_can_be_shown_on_a_terminal(raw: bytes, utf8: bool) -> None:
    assert not UNSAFE.search(display_name(raw, utf8))


def test_marks_that_reorder_text_are_shown_as_escapes() -> None:
    assert display_name(encode_utf7("invoice\u202efdp.exe")) == r"invoice\u202efdp.exe"


@given(any_text)
def test_a_path_component_is_harmless(name: str) -> None:
    component = path_component(name)

    assert component
    assert not component.startswith(".")
    assert not component.endswith((".", " "))
    assert not set(component) & set('/\\:*?"<>|\0')
    assert not UNSAFE.search(component)
    assert len(component.encode()) <= LONGEST_COMPONENT
    assert unicodedata.normalize("NFC", component) == component


@given(any_text)
def test_a_path_component_gives_the_name_back(name: str) -> None:
    component = path_component(name)

    if "%~" in component:
        assert len(name.encode("utf-8", "surrogatepass")) > LONGEST_COMPONENT // 9
        with pytest.raises(ValueError):
            path_component_decode(component)
    else:
        assert path_component_decode(component) == name


@given(any_text)
def test_only_what_was_encoded_is_decoded(component: str) -> None:
    try:
        name = path_component_decode(component)
    except ValueError:
        return
    assert path_component(name) == component


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("Projekte 2024", "Projekte 2024"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        (".ssh", "%2Essh"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("trailing ", "trailing%20"),
        ("con", "%63on"),
        ("LPT1.txt", "%4CPT1.txt"),
        ("console", "console"),
        ("Café", "Café"),
        ("Cafe\u0301", "Cafe%CC%81"),
    ],
)
def test_path_components_stay_readable(name: str, component: str) -> None:
    assert path_component(name) == component


@given(st.text("aé%/", min_size=200, max_size=260), st.text("aé%/", max_size=5), st.text("aé%/", max_size=5))
def test_long_names_that_differ_anywhere_stay_apart(start: str, one: str, other: str) -> None:
    a, b = path_component(start + one), path_component(start + other)

    assert (a == b) == (one == other)
    assert len(a.encode()) <= LONGEST_COMPONENT


def test_a_name_of_just_the_longest_size_is_not_cut() -> None:
    assert path_component("a" * LONGEST_COMPONENT) == "a" * LONGEST_COMPONENT
    assert "%~" in path_component("a" * (LONGEST_COMPONENT + 1))


@given(st.binary(), st.sampled_from([b"/", b".", b"\\", None]))
def test_levels_joined_are_the_name(raw: bytes, delimiter: bytes | None) -> None:
    assert (delimiter or b"").join(split_levels(raw, delimiter)) == raw


def test_levels_are_split_by_the_servers_own_delimiter() -> None:
    assert split_levels(b"INBOX.a/b.c", b".") == [b"INBOX", b"a/b", b"c"]
    assert split_levels(b"INBOX.a/b.c", None) == [b"INBOX.a/b.c"]
    assert split_levels(b"a//b/", b"/") == [b"a", b"", b"b", b""]
