"""No text becomes markup, whatever it is."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.cli.markup import element, joined


class Seen(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(max_size=200), st.text(max_size=100))
def test_text_stays_text(text: str, value: str) -> None:
    seen = Seen(element("p", text, element("b", text), title=value))
    assert [tag for tag, _ in seen.elements] == ["p", "b"]
    assert [key for key, _ in seen.elements[0][1]] == ["title"]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "</td></table>&lt;", "a & b"])
def test_what_people_write_can_be_read(text: str) -> None:
    assert Seen(element("td", text)).text == text
    assert dict(Seen(element("td", "", title=text)).elements[0][1])["title"] == text


def test_marks_that_reorder_text_are_shown() -> None:
    assert Seen(joined("invoice\u202egpj.exe")).text == "invoice\\u202egpj.exe"


def test_names_of_elements_and_attributes_are_no_place_for_text() -> None:
    with pytest.raises(ValueError, match="no name"):
        element("p><script")
    with pytest.raises(ValueError, match="no name"):
        element("p", **{'x onload="y': "z"})
