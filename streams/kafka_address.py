"""Where Kafka is and how to come in: the setting `log` as `kafka://[USER@]HOST:PORT[,…][?OPTION=VALUE&…]`.

    security   plaintext, ssl, sasl_ssl, sasl_plaintext; default: sasl_ssl where the URL names a user, else plaintext
    mechanism  scram-sha-512 (default), scram-sha-256 or plain
    ca         PEM file of the authorities to trust; default: those of the system
    cert, key  PEM files of the client's own certificate

The password is the setting `log_password`, never part of the URL: URLs end up in logs and process lists.
"""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from schemas.errors import ConfigError, shown

PLACE = "log"
DEFAULT_PORT = 9092
SECURITIES = ("plaintext", "ssl", "sasl_ssl", "sasl_plaintext")
MECHANISMS = ("scram-sha-512", "scram-sha-256", "plain")
OPTIONS = ("security", "mechanism", "ca", "cert", "key")


class KafkaAddress(NamedTuple):
    """A Kafka cluster and the way in. `client` are options that aiokafka's and kafka-python's clients both take."""

    brokers: list[str]
    client: dict[str, Any]

    def __str__(self) -> str:
        return ",".join(self.brokers)

    def __repr__(self) -> str:
        return f"KafkaAddress({self})"  # without the password


def parse_address(url: str, password: str = "") -> KafkaAddress:
    """Read a `kafka:` URL.

    Raises:
        ConfigError: with the part that is wrong and the mend.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "kafka":
        raise ConfigError(PLACE, f"{shown(url)} is not a Kafka URL.", "Write kafka://HOST:PORT.")
    rest, _, query = rest.partition("?")
    user, at, hosts = rest.rpartition("@")
    if ":" in user:
        raise ConfigError(PLACE, "the URL holds a password.", "Take it out, and set TIDEWIRE_LOG_PASSWORD or _FILE.")
    brokers = [_broker(host) for host in hosts.rstrip("/").split(",")]
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(PLACE, f"Kafka option {shown(name)} is not known.", f"Options are: {', '.join(OPTIONS)}.")
    security = options.get("security", "sasl_ssl" if at else "plaintext").lower()
    if security not in SECURITIES:
        raise ConfigError(PLACE, f"security is {shown(security)}.", f"It is one of: {', '.join(SECURITIES)}.")
    client: dict[str, Any] = {"security_protocol": security.upper()}
    if security.startswith("sasl"):
        client |= _credentials(unquote(user), password, options, brokers, is_encrypted=security == "sasl_ssl")
    elif at:
        raise ConfigError(PLACE, f"the URL names a user, but security is {security}.", "Set security=sasl_ssl.")
    if security.endswith("ssl"):
        client["ssl_context"] = _ssl_context(options)
    return KafkaAddress(brokers, client)


def _broker(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # no port
        host, port = text, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(PLACE, f"{shown(text)} is not an address of a broker.", "Write kafka://HOST:PORT,HOST:PORT.")
    return f"{host}:{port}"


def _credentials(
    user: str, password: str, options: dict[str, str], brokers: list[str], *, is_encrypted: bool
) -> dict[str, Any]:
    mechanism = options.get("mechanism", MECHANISMS[0]).lower()
    if mechanism not in MECHANISMS:
        raise ConfigError(PLACE, f"mechanism is {shown(mechanism)}.", f"It is one of: {', '.join(MECHANISMS)}.")
    if not user:
        raise ConfigError(PLACE, "SASL needs a user.", "Write kafka://USER@HOST:PORT.")
    if not password:
        raise ConfigError(PLACE, f"no password for user {shown(user)}.",
                          "Set TIDEWIRE_LOG_PASSWORD, or TIDEWIRE_LOG_PASSWORD_FILE.")  # fmt: skip
    if not is_encrypted:
        for broker in brokers:
            if not _is_loopback(broker):
                raise ConfigError(PLACE, f"sasl_plaintext would send the password to {broker} for all to read.",
                                  "Set security=sasl_ssl.")  # fmt: skip
    return {"sasl_mechanism": mechanism.upper(), "sasl_plain_username": user, "sasl_plain_password": password}


def _is_loopback(broker: str) -> bool:
    host = broker.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _ssl_context(options: dict[str, str]) -> ssl.SSLContext:
    """Certificates and names of brokers are always checked."""
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(PLACE, f"the certificates cannot be read: {error}.",
                          "See options ca, cert and key.") from None  # fmt: skip
    return context
