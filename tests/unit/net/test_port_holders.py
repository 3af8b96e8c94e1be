"""Who listens at an address, by a /proc made up."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.port_holders import holder_of_path, holder_of_port

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(address: str, state: str, inode: int) -> str:
    return f"   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0\n"


class HolderTests(SynchronousTestCase):
    """Sockets of three processes."""

    def setUp(self) -> None:
        self.proc = self.mktemp()
        os.makedirs(f"{self.proc}/net")
        v6 = "00000000000000000000000000000000"
        tables = {
            "tcp": HEAD
            + line("0100007F:1F40", "0A", 11)
            + line("0200007F:1F40", "0A", 12)
            + line("0100007F:1F41", "01", 13),
            "tcp6": HEAD + line(f"{v6}:1F42", "0A", 14),
            "unix": "Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 10000 1 1 15 /run/x.sock\n0: 2 0 0 1 1 16\n",
        }
        for name, text in tables.items():
            with open(f"{self.proc}/net/{name}", "w") as file:
                file.write(text)
        for pid, name, inodes in ((7, "nginx", [11, 14]), (30, "nginx", [11]), (100, "other", [12, 13, 15])):
            os.makedirs(f"{self.proc}/{pid}/fd")
            with open(f"{self.proc}/{pid}/comm", "w") as file:
                file.write(f"{name}\n")
            for fd, inode in enumerate(inodes):
                os.symlink(f"socket:[{inode}]", f"{self.proc}/{pid}/fd/{fd}")
        os.makedirs(f"{self.proc}/200")  # one that is ending: it has no descriptors any more
        os.makedirs(f"{self.proc}/sys")

    def port(self, host: str, port: int) -> str:
        return str(holder_of_port(host, port, self.proc))

    def test_ports(self) -> None:
        """The one at that address, or at all addresses; of several processes the first; only who listens."""
        self.assertEqual(self.port("127.0.0.1", 8000), "process 7 (nginx)")
        self.assertEqual(self.port("127.0.0.2", 8000), "process 100 (other)")
        self.assertEqual(self.port("0.0.0.0", 8000), "process 7 (nginx)")
        self.assertEqual(self.port("localhost", 8000), "process 7 (nginx)")
        self.assertEqual(self.port("127.0.0.1", 8002), "process 7 (nginx)")
        self.assertEqual(self.port("::1", 8002), "process 7 (nginx)")
        self.assertEqual(self.port("127.0.0.1", 8001), "None")
        self.assertEqual(self.port("127.0.0.1", 8003), "None")

    def test_paths(self) -> None:
        self.assertEqual(str(holder_of_path("/run/x.sock", self.proc)), "process 100 (other)")
        self.assertIsNone(holder_of_path("/run/y.sock", self.proc))

    def test_no_proc(self) -> None:
        """Without /proc nobody is found, and nothing fails."""
        self.assertIsNone(holder_of_port("127.0.0.1", 80, "/none"))
        self.assertIsNone(holder_of_path("/run/x.sock", "/none"))
