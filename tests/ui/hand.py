"""A person at the browser, who finds what to click by the words on the page."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect


@dataclass(frozen=True)
class Hand:
    """Clicks words, and notes which."""

    page: Page
    said: set[str] = field(default_factory=set)
    """The words that were clicked or seen."""

    def words(self, words: str, *, exact: bool = True) -> Locator:
        self.said.add(words)
        return self.page.get_by_text(words, exact=exact).filter(visible=True)

    def go(self, place: str) -> None:
        """Click a place in the navigation, which is the first on the page."""
        self.words(place).first.click()

    def press(self, words: str) -> None:
        """Press a button, or choose what stands in a dialog or menu, which is the last on the page."""
        self.words(words).last.click()

    def sees(self, words: str | re.Pattern[str]) -> None:
        if isinstance(words, str):
            self.said.add(words)
        expect(self.page.get_by_text(words).filter(visible=True).first).to_be_visible()

    def button(self, words: str) -> Locator:
        """Return the button with these words; three dots also stand for an ellipsis."""
        self.said.add(words)
        written = re.escape(words).replace(re.escape("..."), r"(\.\.\.|…)")
        return self.page.get_by_role("button", name=re.compile(f"{written}$")).filter(visible=True).last

    def open_asset(self, name: str) -> None:
        """*Catalog*, then the asset's name, scrolling until it is there."""
        self.go("Catalog")
        row = self.page.get_by_text(name.replace("/", " / "), exact=True).filter(visible=True).first
        expect(self.page.get_by_text("champion", exact=True).first).to_be_visible()
        self.page.mouse.move(700, 500)
        for _ in range(100):
            if row.is_visible():
                break
            self.page.mouse.wheel(0, 200)
            self.page.wait_for_timeout(100)
        row.click()

    def open_job(self, name: str) -> None:
        self.go("Jobs")
        self.page.get_by_text(name, exact=True).filter(visible=True).first.click()

    def keep(self, name: str, **part: int) -> None:
        """Keep a picture of the page, or of a part of it (x, y, width, height)."""
        folder = os.environ.get("ECG_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(2500)  # until what moves stands still
            clip = {"x": 0, "y": 0, "width": 1400, "height": 860, **part}
            self.page.screenshot(path=Path(folder) / f"{name}.png", clip=clip)  # pyright: ignore[reportArgumentType]


def italics(page: Path) -> set[str]:
    """Return what stands in italics on a page of the documentation."""
    return set(re.findall(r"(?<![*\w])\*([^*\n]+)\*(?!\*)", page.read_text()))
