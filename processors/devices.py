"""Which device an event came from, in words a person knows: `Chrome on Windows`, `iPhone 15`.

Versions are left out, so an update of the browser is not another device. User agents say little that is true and
less every year; this reads the few signs that hold.
"""

from __future__ import annotations

from functools import lru_cache

from processors.context import Device, Facts, Named

LONGEST = 80  # characters of a device's name, and of its id
# The first sign found decides: all of them also say Chrome or Safari, and Android also says Linux.
_BROWSERS = (
    ("MicroMessenger", "WeChat"), ("Edg", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser", "Samsung Internet"),
    ("UCBrowser", "UC Browser"), ("QQBrowser", "QQ Browser"), ("YaBrowser", "Yandex"), ("FxiOS", "Firefox"),
    ("Firefox", "Firefox"), ("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari"),
)  # fmt: skip
_SYSTEMS = (
    ("iPhone", "iPhone", "phone"), ("iPad", "iPad", "tablet"), ("Android", "Android", "phone"),
    ("HarmonyOS", "HarmonyOS", "phone"), ("Windows", "Windows", "computer"), ("Macintosh", "macOS", "computer"),
    ("CrOS", "ChromeOS", "computer"), ("Linux", "Linux", "computer"),
)  # fmt: skip
_BOTS = ("bot", "spider", "crawl", "slurp", "headless", "monitor")


def device_of(facts: Facts) -> str:
    """The device as `kind`, `name` and `id`, separated by tabs; empty where the context names none."""
    device = facts.device
    if device is not None and (device.id or device.model or device.name):
        return _named(device, facts.os)
    return _of_user_agent(facts.user_agent) if facts.user_agent else ""


def _named(device: Device, system: Named | None) -> str:
    model = device.name or f"{device.manufacturer} {device.model}".strip() or device.type or "device"
    kind = "tablet" if "ipad" in model.lower() else "phone"
    if system is not None and system.name in ("macOS", "Windows", "Linux"):
        kind = "computer"
    return f"{kind}\t{_clean(model)}\t{_clean(device.id)}"


@lru_cache(maxsize=4_096)
def _of_user_agent(user_agent: str) -> str:
    lower = user_agent.lower()
    if any(sign in lower for sign in _BOTS):
        return f"bot\t{_clean(user_agent.partition('/')[0]) or 'bot'}\t"
    browser = next((name for sign, name in _BROWSERS if sign in user_agent), "")
    system, kind = next(((name, kind) for sign, name, kind in _SYSTEMS if sign in user_agent), ("", "other"))
    if system == "Android" and "Mobile" not in user_agent:
        kind = "tablet"
    name = f"{browser} on {system}" if browser and system else browser or system or _clean(user_agent.partition("/")[0])
    return f"{kind}\t{name or 'unknown'}\t"


def _clean(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
