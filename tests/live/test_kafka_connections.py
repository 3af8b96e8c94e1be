"""Connections to Apache Kafka: TLS, logins, and what is told when they fail."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from kongtwist.core.chain.host_basics import TLSSettings
from kongtwist.core.chain.host_kafka import KafkaConnection, KafkaOAuth
from kongtwist.kafka.causes import Causes
from kongtwist.kafka.connection_settings import client_options
from tests.live.kafka_server import USER, KafkaCluster, shared_cluster
from tests.live.support import LiveTestCase, free_port, wait_until


def _reached(connection: KafkaConnection, authorities: tuple[str, ...] = ()) -> bool:
    """Whether a record sent over it is acknowledged."""
    producer = KafkaProducer(**client_options(connection, authorities))
    try:
        return producer.send("connections", b"x").get(60) is not None
    finally:
        producer.close(60)


class _TokenEndpoint(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"{self.headers['Authorization']} {body}")
        answer = json.dumps({"access_token": _unsigned(), "expires_in": 300, "token_type": "bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def _unsigned() -> str:
    """A token that nobody signed, which the brokers of the tests take."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": "alice", "iat": now, "exp": now + 3600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class ConnectionTests(LiveTestCase):
    def setUp(self) -> None:
        self.cluster: KafkaCluster = shared_cluster()

    def _sasl(self, **options: Any) -> KafkaConnection:
        user, password = USER
        return KafkaConnection(
            (self.cluster.listener("SASL_PLAINTEXT"),), **{"username": user, "password": password, **options}
        )

    def test_plain(self) -> None:
        self.assertTrue(_reached(KafkaConnection((self.cluster.servers,))))

    def test_logins(self) -> None:
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            self.assertTrue(_reached(self._sasl(mechanism=mechanism)))

    def test_token(self) -> None:
        server = HTTPServer(("127.0.0.1", 0), _TokenEndpoint)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        oauth = KafkaOAuth(f"http://127.0.0.1:{server.server_port}/token", "kong", "s e", scopes=("a", "b"))
        self.assertTrue(_reached(self._sasl(mechanism="OAUTHBEARER", oauth=oauth)))
        user = base64.b64encode(b"kong:s%20e").decode()
        # One token serves all connections.
        self.assertEqual(_TokenEndpoint.asked, [f"Basic {user} grant_type=client_credentials&scope=a+b"])

    def test_tls(self) -> None:
        servers = (self.cluster.listener("SSL"),)
        self.assertTrue(_reached(KafkaConnection(servers, tls=TLSSettings(verify=True)), (self.cluster.ca.pem,)))
        self.assertTrue(_reached(KafkaConnection(servers, tls=TLSSettings(verify=False))))


class CauseTests(LiveTestCase):
    """The log says why, where the library's error does not."""

    def setUp(self) -> None:
        self.cluster = shared_cluster()
        self.causes = Causes.installed()
        self.causes.taken(threading.get_ident())

    def _told(self, part: str, servers: str, **options: Any) -> None:
        """Trying again and again, as a producer does, has a cause told, with its remedy."""
        connection = KafkaConnection((servers,), **options)

        def told() -> bool:
            words = {**client_options(connection), "bootstrap_timeout_ms": 1500}
            self.assertRaises(KafkaTimeoutError, KafkaProducer, **words)
            cause = self.causes.taken(threading.get_ident())
            return cause is not None and part in f"{cause.text}; {cause.remedy}"

        wait_until(told, part)

    def test_nobody_there(self) -> None:
        self._told("connection refused", f"127.0.0.1:{free_port()}")

    def test_login(self) -> None:
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            wrong = {"mechanism": mechanism, "username": "alice", "password": "wrong"}
            self._told("login refused", self.cluster.listener("SASL_PLAINTEXT"), **wrong)

    def test_certificate(self) -> None:
        self._told("not trusted", self.cluster.listener("SSL"), tls=TLSSettings(verify=True))

    def test_no_tls_there(self) -> None:
        self._told("config.security", self.cluster.servers, tls=TLSSettings())
