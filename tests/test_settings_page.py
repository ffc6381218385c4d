"""docs/settings.md says what the settings are."""

from __future__ import annotations

from config import reference


def test_the_page_of_settings_is_as_the_declarations_make_it():
    assert reference.PAGE.read_text() == reference.page(), "run: python -m config.reference"
