"""Reads the project's HTML pages as a browser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its texts, and its tables' cells by row and name."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.section = ""
        self.rows: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.cell: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        found = dict(attrs)
        if tag == "section":
            self.section = found.get("id") or ""
        if tag == "tr":
            self.rows.append((self.section, {}))
        if tag in ("th", "td") and self.rows:
            self.cell = found.get("data-name") or ("" if tag == "th" else None)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data
        if self.cell is not None:
            cells = self.rows[-1][1]
            cells[self.cell] = f"{cells.get(self.cell, '')} {data.strip()}".strip()


def self_contained(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "base", "form", "use", "foreignobject"})
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
            assert value.startswith(("data:image/png;base64,", "#")), value
    for style in re.findall(r"<style>(.*?)</style>", text, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style
    assert "http:" not in text
    assert "https:" not in text
    return page
