"""The systemd unit and the Containerfile: what they run is run as they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.live.containerfile import Image, build, instructions
from tests.live.fresh_machine import Machine
from tests.live.support import PATIENCE, ROOT, LiveTestCase, Process, free_port, request, wait_until

UNIT = ROOT / "conf" / "kongtwist.service"
HARDENING = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "UMask": "0077",
    "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE", "RestrictNamespaces": "yes", "SystemCallArchitectures": "native",
}  # fmt: skip
EXPOSURE = 20
"""The worst mark of ``systemd-analyze security``, of 0 (best) to 100."""


def engine() -> str | None:
    """The container engine that answers here and can get the images needed, if any."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    images = {arguments.split()[0] for name, arguments in instructions(text) if name == "FROM"}
    for name in filter(shutil.which, ("docker", "podman")):
        needed = (["info"], *(["pull", image] for image in images))
        if all(subprocess.run([name, *words], capture_output=True, check=False).returncode == 0 for words in needed):
            return name
    return None


class SystemdUnitTests(LiveTestCase):
    """conf/kongtwist.service, with the programs of this environment and a folder for the node's state."""

    def setUp(self) -> None:
        self.state = self.folder()
        machine = Machine(self.folder(), {})
        environment = machine.folder / "environment"
        machine.environment(environment, ROOT)
        text = UNIT.read_text(encoding="utf-8")
        self.text = text.replace("/opt/kongtwist/", f"{environment}/").replace("/var/lib/kongtwist", self.state)
        self.settings: dict[str, list[str]] = {}
        for name, value in re.findall(r"^(\w+)=(.*)$", self.text, re.MULTILINE):
            self.settings.setdefault(name, []).append(value)

    def command(self, name: str) -> list[str]:
        """The words of ExecStart or ExecReload."""
        (line,) = self.settings[name]
        return shlex.split(line)

    def test_verified(self) -> None:
        """systemd understands it, and finds little that could still be closed."""
        for name, value in HARDENING.items():
            self.assertEqual(self.settings[name], [value], name)
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            return  # what it says is checked above, what it runs below
        path = Path(self.folder(), UNIT.name)
        path.write_text(self.text, encoding="utf-8")
        done = subprocess.run(
            [analyze, "verify", str(path)], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        words = [analyze, "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_life(self) -> None:
        """Start until the node is ready, reload, graceful stop; the service manager is told of each."""
        self.assertEqual(self.settings["Type"], ["notify"])
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notices.close)
        notices.settimeout(PATIENCE)
        address = os.path.join(self.folder(), "notify")
        notices.bind(address)
        ports = [free_port(), free_port()]
        env = {
            "NOTIFY_SOCKET": address, "KONG_PROXY_LISTEN": f"127.0.0.1:{ports[0]}", "PYTHONDONTWRITEBYTECODE": "1",
            "KONG_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}", "KONG_NGINX_WORKER_PROCESSES": "2",
        }  # fmt: skip
        node = self.start(self.command("ExecStart"), "node", env, self.state)
        self.assertEqual(notices.recv(1000), b"READY=1")
        self.assertEqual(request(ports[1], "GET", "/status").status, 200)
        self.assertEqual(request(ports[0], "GET", "/").status, 404)
        reload = subprocess.run(
            self.command("ExecReload"), env={**os.environ, **env}, capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual(reload.returncode, 0, reload.stderr)
        self.assertEqual((self.settings["KillSignal"], self.settings["KillMode"]), (["SIGTERM"], ["mixed"]))
        node.signal(signal.SIGTERM)
        self.assertEqual(notices.recv(1000), b"STOPPING=1")
        self.assertEqual(node.wait(), 0, node.output())

    def test_failed_start(self) -> None:
        """A start that fails ends with exit code 1, which systemd takes for a failure; it waits longer than a stop takes."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            env = {"KONG_PROXY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}", "KONG_ADMIN_LISTEN": "off"}
            node = self.start(self.command("ExecStart"), "node", env, self.state)
            self.assertEqual(node.wait(), 1, node.output())
        shutdown = re.search(r"^#nginx_main_worker_shutdown_timeout = (\d+)s$", _default_conf(), re.MULTILINE)
        assert shutdown is not None
        self.assertGreater(int(self.settings["TimeoutStopSec"][0]), 2 * int(shutdown[1]))


def _default_conf() -> str:
    return (ROOT / "conf" / "kongtwist.conf.default").read_text(encoding="utf-8")


class ContainerTests(LiveTestCase):
    """Containerfile: built and started by an engine where one answers; else its instructions are done one by one."""

    def test_container(self) -> None:
        """It is built, becomes healthy, serves what the environment configures, and stops when it is told."""
        name = engine()
        if name is not None:
            self._by_engine(name)
        else:
            self._by_hand()

    def _by_hand(self) -> None:
        machine = Machine(self.folder(), {})
        context = machine.clone("context")
        image = build(context, machine.folder, machine)
        self.assertFalse((image.root / "src").exists())
        self.assertEqual(image.said["USER"], "10001:10001")
        self.assertTrue((machine.folder / "stage-build" / "src" / "setup.cfg").exists())
        self.assertFalse((machine.folder / "stage-build" / "src" / "tests").exists())
        for volume in image.said["VOLUME"].split():
            self.assertTrue(Path(image.here(volume)).is_dir(), volume)
        proxy, admin, status = free_port(), free_port(), free_port()
        env = {
            **image.environ, "KONG_PROXY_LISTEN": f"127.0.0.1:{proxy}", "KONG_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "KONG_STATUS_LISTEN": f"127.0.0.1:{status}",
        }  # fmt: skip
        health = image.words("HEALTHCHECK")
        self.assertEqual(self._exit_code(image, health, env), 1, "healthy without a node")
        node, first = self._start(image, env)
        wait_until(lambda: request(status, "GET", "/status/ready").status == 200, "the node is ready")
        self.assertEqual(self._exit_code(image, health, env), 0)
        self.assertEqual(request(admin, "POST", "/routes", json={"paths": ["/x"]}).status, 201)
        self.assertEqual(request(proxy, "GET", "/x").status, 503)
        self.assertTrue((Path(image.here("/var/lib/kongtwist")) / "kongtwist.sqlite").exists())
        os.kill(first, signal.Signals[image.said["STOPSIGNAL"]])
        self.assertEqual(node.wait(), 0, node.output())
        self.assertEqual(self._exit_code(image, health, env), 1)
        for log in ('"GET /x HTTP/1.1" 503', '"POST /routes HTTP/1.1" 201', "SIGTERM received"):
            self.assertIn(log, node.output())
        self.assertEqual(node.output().count("SIGTERM received"), 1, "the log goes to the engine twice")

    def _start(self, image: Image, env: dict[str, str]) -> tuple[Process, int]:
        """Start the entry point, as process 1 and as the image's user where that can be; returns its process id too."""
        words, folder = image.words("ENTRYPOINT"), image.here(image.said["WORKDIR"])
        user, _, group = image.said["USER"].partition(":")
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        as_user = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
        for each in image.root.parents:
            if each.stat().st_uid == os.geteuid() and each.name.startswith("kongtwist-live-"):
                each.chmod(0o755)
        for before in ([*alone, *as_user], alone, as_user):
            if subprocess.run([*before, shutil.which(words[0], path=env["PATH"]) or "", "--version"], env=env,
                              capture_output=True, check=False).returncode == 0:  # fmt: skip
                break
        else:
            before = []
        if before == alone:  # the user may not enter the folders of this Python
            shutil.chown(folder, os.geteuid(), os.getegid())
        output = Path(self.folder(), "output")
        script = 'cd "$1" && shift && exec "$@"'
        node = self.start(["sh", "-c", script, "sh", folder, *before, *words], str(output), {**_cleared(env), **env})
        if before[:1] != ["unshare"]:
            return node, node.pid
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children")
        return node, int(wait_until(lambda: children.read_text().split(), "the entry point")[0])

    def _exit_code(self, image: Image, words: list[str], env: dict[str, str]) -> int:
        folder = image.here(image.said["WORKDIR"])
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode

    def _by_engine(self, name: str) -> None:
        tag, container = f"kongtwist-test-{os.getpid()}", f"kongtwist-test-{os.getpid()}"

        def run(*words: str) -> str:
            done = subprocess.run([name, *words], capture_output=True, text=True, timeout=20 * PATIENCE, check=False)
            self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
            return done.stdout.strip()

        shape = ["--format", "docker"] if name == "podman" else []
        self.addCleanup(subprocess.run, [name, "rmi", "--force", tag], capture_output=True, check=False)
        run("build", *shape, "--file", str(ROOT / "Containerfile"), "--tag", tag, str(ROOT))
        port = free_port()
        self.addCleanup(
            subprocess.run, [name, "rm", "--force", "--volumes", container], capture_output=True, check=False
        )
        run("run", "--detach", "--name", container, "--publish", f"127.0.0.1:{port}:8000",
            "--env", "KONG_DATABASE=off", "--env", 'KONG_DECLARATIVE_CONFIG_STRING={"_format_version": "3.0",'
            ' "services": [{"name": "s", "host": "127.0.0.1", "routes": [{"name": "r", "paths": ["/x"]}]}]}', tag)  # fmt: skip
        state = ["inspect", "--format", "{{.State.Health.Status}}", container]
        wait_until(lambda: run(*state) == "healthy", "the container is healthy", 4 * PATIENCE)
        self.assertEqual(request(port, "GET", "/y").status, 404)
        self.assertEqual(request(port, "GET", "/x").status, 502)
        run("stop", "--time", "30", container)
        self.assertEqual(run("inspect", "--format", "{{.State.ExitCode}}", container), "0")


def _cleared(env: dict[str, str]) -> dict[str, str]:
    """Our own variables, unset: a container has those of its image."""
    return {name: "" for name in os.environ if name.startswith(("KONG_", "PYTHON"))}
