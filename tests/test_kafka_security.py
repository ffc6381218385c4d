"""The way into a Kafka that asks who one is: encrypted, with certificate and password, as `docs/operating.md` says."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from schemas.errors import Unreachable
from streams.kafka import KafkaLog
from streams.log import TP, Outgoing
from tests.kafka_broker import Kafka, free_ports

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PASSWORD = "canary of the sea"


@pytest.fixture(scope="module")
def secured(can_start_kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a listener that takes users over TLS only, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("certificates")
    store, certificate = folder / "broker.p12", folder / "broker.pem"
    keytool = ["keytool", "-keystore", str(store), "-storepass", "changeit", "-alias", "broker"]
    for rest in (
        ["-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-validity", "2", "-storetype", "PKCS12",
         "-dname", "CN=localhost", "-ext", "SAN=dns:localhost"],
        ["-exportcert", "-rfc", "-file", str(certificate)],
    ):  # fmt: skip
        subprocess.run([*keytool, *rest], check=True, capture_output=True)
    (port,) = free_ports(1)
    kafka = Kafka()
    broker = kafka.brokers[0]
    broker.settings |= {
        "listeners": f"PLAINTEXT://{broker.address},CONTROLLER://127.0.0.1:{broker.controller_port},"
                     f"USERS://localhost:{port}",
        "advertised.listeners": f"PLAINTEXT://{broker.address},USERS://localhost:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.users.scram-sha-512.sasl.jaas.config":
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": "changeit",
    }  # fmt: skip
    with kafka:
        with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
            user = UserScramCredentialUpsertion("tide", ScramMechanism.SCRAM_SHA_512, PASSWORD)
            assert admin.alter_user_scram_credentials([user]) == {"tide": None}
        yield f"localhost:{port}", certificate


async def test_a_user_with_the_right_password_does_everything(secured: tuple[str, Path]) -> None:
    address, certificate = secured
    log = KafkaLog(f"kafka://tide@{address}?ca={certificate}", password=PASSWORD)
    await log.start()

    await log.create_topic("secured", 1, 86_400_000)
    await log.append("secured", [Outgoing(b"key", b"value")])
    member = await log.subscribe("secured", ["secured"])
    polled = await member.poll(10, 10)
    await member.commit({TP("secured", 0): 1})

    assert [record.value for record in polled[TP("secured", 0)]] == [b"value"]
    assert [record.value for record in await log.read(TP("secured", 0), 0, 10)] == [b"value"]
    assert await log.committed("secured", "secured") == {0: 1}
    assert "secured" in await log.topics()
    await member.close()
    await log.stop()


async def test_a_wrong_password_is_said_in_one_line_without_it(secured: tuple[str, Path]) -> None:
    address, certificate = secured
    log = KafkaLog(f"kafka://tide@{address}?ca={certificate}", password="not the canary")
    began = time.monotonic()

    with pytest.raises(Unreachable, match=r"refused the password") as caught:
        await log.start()

    assert "canary" not in str(caught.value)
    assert time.monotonic() - began < 12


async def test_a_broker_whose_certificate_is_not_trusted_is_not_talked_to(secured: tuple[str, Path]) -> None:
    address, _ = secured
    log = KafkaLog(f"kafka://tide@{address}", password=PASSWORD)

    with pytest.raises(Unreachable):
        await asyncio.wait_for(log.start(), 15)
