"""Templates in topic `templates`, newest versions compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from config.templates import FOLDER, MOST_TEMPLATES, parse_template, read_texts
from schemas.errors import ConfigError
from schemas.templates import SavedTemplate, decode_saved, encode_saved
from sinks.messages.rendering import Template
from streams.texts import Texts

LARGEST_TOGETHER_BYTES = 32 * 1024 * 1024


class Templates(Texts[SavedTemplate, Template]):
    """Templates of messages. A compiled one says which version it is."""

    topic, noun, folder = "templates", "template", FOLDER
    most, largest_together_bytes = MOST_TEMPLATES, LARGEST_TOGETHER_BYTES
    form = SavedTemplate

    def _decode(self, value: bytes) -> SavedTemplate:
        return decode_saved(value)

    def _encode(self, saved: SavedTemplate) -> bytes:
        return encode_saved(saved)

    def _files(self) -> Mapping[str, str]:
        return read_texts(self._config)

    def check(self, name: str, text: str, file: str = "") -> Template:
        return parse_template(name, text, self._config, self._zone, file)

    def compile(self, saved: SavedTemplate) -> Template | ConfigError:
        compiled = super().compile(saved)
        return compiled if isinstance(compiled, ConfigError) else replace(compiled, version=str(saved.version))
