"""Makes docs/settings.md from the declarations: `python -m config.reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from config.settings import PREFIX, Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
_HEAD = f"""# Settings

Made from `config/settings.py` by `python -m config.reference`.

A setting comes from the command line (`--port 8090`), else from the environment (`{PREFIX}PORT=8090`, or
`{PREFIX}PORT_FILE` naming a file that holds the value, for secrets), else from `tidewire.yaml` in the config folder
(`port: 8090`), else it has its default. `tidewire config show` prints each, and where it came from. A setting that is
not known, or has a value that cannot be, stops the start with one line that names the place and the mend.

| setting | default | what |
|---|---|---|
"""


def page() -> str:
    """The page, in Markdown."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    shown = _shown(field.default)
    return f"| `{name}` | {f'`{shown}`' if shown else ''} | {(field.description or '').replace('|', '&#124;')} |\n"


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    PAGE.write_text(page())
