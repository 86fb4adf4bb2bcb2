"""Flags mean the same in IMAP, Maildir and mbox."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.flags import (
    allowed,
    from_maildir_letters,
    from_mbox_status,
    keyword_table,
    maildir_letters,
    mbox_status,
    normalise,
)
from backupd.model import Flags

SYSTEM = (b"\\Answered", b"\\Deleted", b"\\Draft", b"\\Flagged", b"\\Seen")
system_flags = st.sets(st.sampled_from(SYSTEM)).map(lambda flags: tuple(sorted(flags)))
keywords = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="$_"), min_size=1).map(
    str.encode
)
flag_tuples = st.lists(st.sampled_from((*SYSTEM, b"\\seen", b"\\RECENT", b"\\Other", b"$Forwarded", b"")) | keywords)


def test_system_flags_have_one_spelling_and_recent_is_dropped() -> None:
    assert normalise([b"\\SEEN", b"\\seen", b"\\Recent", b"\\recent", b"Junk", b"junk", b"\\dRAFT", b"Junk"]) == (
        b"Junk",
        b"\\Draft",
        b"\\Seen",
        b"junk",
    )


@given(flag_tuples)
def test_normal_flags_are_sorted_each_once_and_stay_as_they_are(flags: list[bytes]) -> None:
    normal = normalise(flags)

    assert list(normal) == sorted(set(normal))
    assert normalise(normal) == normal
    assert {flag.lower() for flag in flags} - {b"", b"\\recent"} == {flag.lower() for flag in normal}


def test_a_mailbox_that_takes_any_keyword_refuses_only_system_flags_it_does_not_have() -> None:
    kept, refused = allowed([b"\\Seen", b"\\Draft", b"Work"], [b"\\seen", b"\\*"])

    assert (kept, refused) == ((b"Work", b"\\Seen"), (b"\\Draft",))


def test_a_mailbox_with_fixed_keywords_refuses_others() -> None:
    kept, refused = allowed([b"\\Seen", b"$Junk", b"Work"], [b"\\Seen", b"$JUNK"])

    assert (kept, refused) == ((b"$Junk", b"\\Seen"), (b"Work",))


def test_a_mailbox_that_stores_nothing_refuses_all_and_one_that_did_not_say_none() -> None:
    assert allowed([b"\\Seen", b"Work"], []) == ((), (b"Work", b"\\Seen"))
    assert allowed([b"\\Seen", b"Work"], None) == ((b"Work", b"\\Seen"), ())


@given(flag_tuples, st.none() | st.sets(st.sampled_from((*SYSTEM, b"\\*", b"$Forwarded"))))
def test_each_flag_is_either_kept_or_refused(flags: list[bytes], permanent: set[bytes] | None) -> None:
    kept, refused = allowed(flags, permanent)

    assert tuple(sorted(kept + refused)) == normalise(flags)


def test_maildir_letters_are_those_of_the_format_in_its_order() -> None:
    assert (
        maildir_letters([b"\\Seen", b"\\Draft", b"\\Flagged", b"\\Answered", b"\\Deleted", b"$Forwarded"]) == "DFPRST"
    )
    assert maildir_letters([b"Work", b"\\Seen", b"Rare"], [b"Junk", b"Work"]) == "Sb"
    assert from_maildir_letters("Sbz?", [b"Junk", b"Work"]) == (b"Work", b"\\Seen")


@given(system_flags, st.lists(keywords, unique=True, max_size=26))
def test_flags_survive_a_maildir(flags: Flags, chosen: list[bytes]) -> None:
    before = normalise([*flags, *chosen])
    table = keyword_table([before])

    assert from_maildir_letters(maildir_letters(before, table), table) == before


@given(st.lists(st.lists(keywords, max_size=6), max_size=20))
def test_the_most_used_keywords_get_letters(flag_sets: list[list[bytes]]) -> None:
    table = keyword_table([*flag_sets, [b"Common", b"\\Seen", b"$Forwarded"], *([[b"Common"]] * 200)])

    assert table[0] == b"Common"
    assert len(table) == len(set(table)) <= 26
    assert b"\\Seen" not in table
    assert b"$Forwarded" not in table


@given(system_flags)
def test_system_flags_survive_an_mbox(flags: Flags) -> None:
    assert from_mbox_status(*mbox_status(flags)) == flags


def test_mbox_status_is_what_mail_programs_write() -> None:
    assert mbox_status([]) == (b"O", b"")
    assert mbox_status([b"\\Seen", b"\\Answered", b"\\Draft", b"Work"]) == (b"RO", b"AT")
    assert from_mbox_status(b"RO", b"FA?") == (b"\\Answered", b"\\Flagged", b"\\Seen")
