"""The pages: what marketers and operators see. `dashboard` makes the app; docs/dashboard.md says what it shows."""

from __future__ import annotations

from web.dashboard.app import dashboard

__all__ = ["dashboard"]
