"""Apache Kafka itself for tests (KRaft, Java 17): ``python -m tests.live.kafka_server`` fetches it once for each version.

`broker/pom.xml` names the version. Jars from Maven Central and an archive of loaded classes, which halves the start, go below
``~/.cache/kongtwist-peers``, in a folder named after that file.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import uuid
from functools import cache
from pathlib import Path

from tests.live.pki import authority
from tests.live.programs import find_program
from tests.live.support import Process, free_port, wait_until

__all__ = ["FETCH_SECONDS", "USER", "KafkaCluster", "shared_cluster", "tied"]

POM = Path(__file__).with_name("broker") / "pom.xml"
FETCH_SECONDS = 900.0
"""Seconds that fetching the jars may take with nothing kept."""
START_SECONDS = 180.0
"""Seconds that brokers may take to serve on a busy machine."""

USER = ("alice", "alice-secret")
"""Name and password of whom the SASL listener lets in, by PLAIN and SCRAM."""

# One processor, no compiler of the second tier: for a short life that costs the least.
_JVM = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto")
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_LISTENERS = ("PLAINTEXT", "CONTROLLER", "SASL_PLAINTEXT", "SSL", "SASL_SSL", "EXPIRED", "MUTUAL")
_JAAS = "org.apache.kafka.common.security"


def _home() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root, "kongtwist-peers", "kafka-" + hashlib.sha256(POM.read_bytes()).hexdigest()[:12])


@cache
def _jars() -> Path:
    """The folder of the jars; they are fetched first where they are not there yet."""
    home = _home()
    done = home / "jars.done"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / "jars.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes may want them at the same time
            if not done.exists():
                words = [find_program("mvn"), "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
                words += [f"-DoutputDirectory={home / 'lib'}", "-DincludeScope=runtime"]
                got = subprocess.run(
                    words, cwd=home, check=False, capture_output=True, text=True, timeout=FETCH_SECONDS
                )
                if got.returncode:
                    raise RuntimeError(f"Kafka could not be fetched:\n{got.stdout[-2000:]}{got.stderr[-2000:]}")
                done.touch()
    return home / "lib"


def _java(main: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    jars = _jars()
    archive = jars.parent / "classes.jsa"
    if archive.exists() and not options:
        options = (f"-XX:SharedArchiveFile={archive}",)
    log = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
    return [find_program("java"), *_JVM, *options, *log, "-cp", f"{jars}/*", main, *arguments]


def tied(words: list[str]) -> list[str]:
    """A command whose process the kernel kills with ours, however that ends."""
    tie = shutil.which("setpriv")
    return [tie, "--pdeathsig", "KILL", *words] if tie else words


class KafkaCluster:
    """Brokers on ports of their own that create topics when they are asked for.

    Args:
        folder: their files.
        brokers: how many, 1 or 3.
        settings: further properties of each, such as ``{"auto.create.topics.enable": "false"}``.

    Attributes:
        ca: the authority that signed the certificates of the TLS listeners.
    """

    def __init__(self, folder: str, brokers: int = 1, settings: dict[str, str] | None = None) -> None:
        self.ca = authority("kafka test authority")
        self._folder = folder
        self._ports = [{name: free_port() for name in _LISTENERS} for _ in range(brokers)]
        self._processes: list[Process | None] = [None] * brokers
        self._settings = settings or {}
        signed = self.ca.sign("localhost")
        Path(folder, "server.pem").write_text(signed.key_pem + signed.pem)
        expired = self.ca.sign("localhost", years=1)
        Path(folder, "expired.pem").write_text(expired.key_pem + expired.pem)
        Path(folder, "ca.pem").write_text(self.ca.pem)

    # -- where it is ---------------------------------------------------------------------------------------------------

    @property
    def servers(self) -> str:
        """Bootstrap servers without TLS and login, ``host:port`` joined by commas."""
        return self.listener("PLAINTEXT")

    def listener(self, name: str) -> str:
        """Bootstrap servers of the listener ``PLAINTEXT``, ``SASL_PLAINTEXT``, ``SSL``, ``SASL_SSL``, ``EXPIRED``: TLS with a
        certificate that has expired, or ``MUTUAL``: TLS with clients that show a certificate of ``ca``."""
        return ",".join(f"127.0.0.1:{ports[name]}" for ports in self._ports)

    def log(self) -> str:
        """What the brokers have printed."""
        return "".join(each.output() for each in self._processes if each is not None)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> KafkaCluster:
        """Format and start all brokers, and wait until each serves and knows the others."""
        cluster = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # not "-", which begins an option
        scram = [word for kind in _SCRAM for word in ("--add-scram", f"{kind}=[name={USER[0]},password={USER[1]}]")]
        formatting = []
        for node in range(len(self._ports)):
            path = self._write(node)
            words = tied(_java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", path, *scram))
            formatting.append(Process(words, self._folder, f"format{node + 1}"))
        for each in formatting:
            if each.wait(START_SECONDS):
                raise AssertionError(f"Kafka could not be formatted:\n{each.output()[-2000:]}")
        for node in range(len(self._ports)):
            self.run(node)
        self.wait()
        return self

    def run(self, node: int = 0, options: tuple[str, ...] = ()) -> None:
        """Start the process of a broker, on the data it has."""
        words = tied(_java("kafka.Kafka", self._path(node), options=options))
        self._processes[node] = Process(words, self._folder, f"kafka{node + 1}")

    def restart(self, node: int = 0) -> None:
        """Start a broker again that was killed, and wait until all serve."""
        self.run(node)
        self.wait()

    def wait(self) -> None:
        """Wait until all brokers serve and know each other: a port that listens is not enough."""
        for node, ports in enumerate(self._ports):
            wait_until(lambda node=node, ports=ports: self._serves(node, ports["PLAINTEXT"]), "Kafka", START_SECONDS)  # type: ignore[misc]

    def _serves(self, node: int, port: int) -> bool:
        process = self._processes[node]
        if process is None or not process.running:
            raise AssertionError(f"Kafka ended:\n{process.output()[-4000:] if process else ''}")
        return _brokers(port) == len(self._ports)

    def signal(self, number: int, node: int = 0) -> None:
        """Send a broker a signal, such as SIGSTOP: the kernel then takes connections, and nothing is answered. On a busy machine its
        threads go on for a while, which is waited for."""
        process = self._processes[node]
        assert process is not None
        process.signal(number)
        if number == signal.SIGSTOP:
            wait_until(lambda: _stands_still(process.pid), "a broker that stands still")

    def kill(self, node: int = 0) -> None:
        """Kill a broker with SIGKILL, frozen or not."""
        process = self._processes[node]
        if process is not None:
            process.kill()

    def kill_all(self) -> None:
        """Kill all brokers."""
        for node in range(len(self._ports)):
            self.kill(node)

    # -- how it is set up ----------------------------------------------------------------------------------------------

    def _path(self, node: int) -> str:
        return f"{self._folder}/node{node + 1}.properties"

    def _write(self, node: int) -> str:
        path = self._path(node)
        Path(path).write_text("".join(f"{name}={value}\n" for name, value in self._properties(node).items()))
        return path

    def _properties(self, node: int) -> dict[str, object]:
        replicas = min(len(self._ports), 3)
        voters = (f"{number + 1}@127.0.0.1:{ports['CONTROLLER']}" for number, ports in enumerate(self._ports))
        plain, scram = f"{_JAAS}.plain.PlainLoginModule", f"{_JAAS}.scram.ScramLoginModule"
        oauth = f"{_JAAS}.oauthbearer.OAuthBearerLoginModule"
        sasl = "listener.name.sasl_plaintext"
        made: dict[str, object] = {
            "process.roles": "broker,controller", "node.id": node + 1, "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in self._ports[node].items()),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,"
            "SASL_SSL:SASL_SSL,EXPIRED:SSL,MUTUAL:SSL",
            "controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": f"{self._folder}/data{node + 1}",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{sasl}.plain.sasl.jaas.config": f'{plain} required user_{USER[0]}="{USER[1]}";',
            f"{sasl}.scram-sha-256.sasl.jaas.config": f"{scram} required;",
            f"{sasl}.scram-sha-512.sasl.jaas.config": f"{scram} required;",
            # Takes tokens that nobody signed (alg none).
            f"{sasl}.oauthbearer.sasl.jaas.config": f'{oauth} required unsecuredLoginStringClaim_sub="broker";',
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{plain} required user_{USER[0]}="{USER[1]}";',
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM", "ssl.keystore.location": f"{self._folder}/server.pem",
            "listener.name.expired.ssl.keystore.type": "PEM",
            "listener.name.expired.ssl.keystore.location": f"{self._folder}/expired.pem",
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.truststore.type": "PEM", "ssl.truststore.location": f"{self._folder}/ca.pem",
            "offsets.topic.replication.factor": replicas, "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas, "transaction.state.log.min.isr": min(2, replicas),
            "transaction.state.log.num.partitions": 4, "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": min(2, replicas), "default.replication.factor": replicas,
            "min.insync.replicas": min(2, replicas), "group.initial.rebalance.delay.ms": 0, "num.io.threads": 2,
            "num.network.threads": 2, "log.cleaner.dedupe.buffer.size": 4194304,
            # Short, for tests that kill brokers; shorter ones fence brokers of a busy machine.
            "broker.session.timeout.ms": 6000, "broker.heartbeat.interval.ms": 1000, "controller.quorum.election.timeout.ms": 300,
        }  # fmt: skip
        return {**made, **self._settings}


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped (proc_pid_stat(5))."""
    try:
        told = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # a thread has just ended
        return False
    return {each.rpartition(")")[2].split()[0] for each in told} == {"T"}


def _brokers(port: int) -> int:
    """How many brokers the one at a port knows (Metadata, version 1); raises OSError while it does not answer."""
    request = struct.pack(">hhih1si", 3, 1, 1, 1, b"t", 0)
    with socket.create_connection(("127.0.0.1", port), 1) as client:
        client.settimeout(5)
        client.sendall(struct.pack(">i", len(request)) + request)
        head = client.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return 0
        answer = client.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
    return int(struct.unpack(">i", answer[4:8])[0]) if len(answer) >= 8 else 0


_shared: dict[int, KafkaCluster] = {}


def shared_cluster(brokers: int = 1) -> KafkaCluster:
    """The brokers that all tests of this process share, started for the first of them and killed at its end. A test takes topics of
    its own, and starts what it kills."""
    if brokers not in _shared:
        folder = tempfile.mkdtemp(prefix="kongtwist-kafka-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        cluster = KafkaCluster(folder, brokers)
        atexit.register(cluster.kill_all)
        _shared[brokers] = cluster.start()
    return _shared[brokers]


def _archive_classes() -> None:
    """Keep what a broker loads, so that others start in half the time."""
    archive = _jars().parent / "classes.jsa"
    if archive.exists():
        return
    with tempfile.TemporaryDirectory(prefix="kongtwist-kafka-") as folder:
        cluster = KafkaCluster(folder)
        try:
            cluster.start()
            cluster.kill()
            made = Path(folder, "classes.jsa")
            cluster.run(options=(f"-XX:ArchiveClassesAtExit={made}",))
            cluster.wait()
            cluster.signal(signal.SIGTERM)
            process = cluster._processes[0]
            assert process is not None
            process.wait(START_SECONDS)
            if made.exists():
                moving = archive.with_suffix(f".{os.getpid()}")  # made whole before others see it
                shutil.move(made, moving)
                moving.replace(archive)
        finally:
            cluster.kill_all()


if __name__ == "__main__":
    _archive_classes()
