"""kafka-python is imported by whichever thread needs it first, and several may."""

from __future__ import annotations

import sys

from tests.live.support import PATIENCE, ROOT, LiveTestCase

SCRIPT = """
import random, sys, threading, time
from importlib.machinery import PathFinder

class Slow(PathFinder):  # so that the threads meet in the middle
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.startswith("kafka"):
            time.sleep(random.random() * 0.01)

sys.meta_path.insert(0, Slow)
from kongtwist.kafka import late_names, libraries
assert "kafka" not in sys.modules

def producer():
    try:
        libraries.made_producer(libraries.KAFKA_PYTHON, None, ())
    except AttributeError as error:  # of None: the class was there
        assert "NoneType" in str(error), error

failed = []
threading.excepthook = lambda args: failed.append(args.exc_value)
threads = [threading.Thread(target=producer) for _ in range(2)]
threads += [threading.Thread(target=getattr, args=(late_names, name)) for name in sys.argv[1:]]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(failed)
"""
NAMES = ("TopicPartition", "KafkaError", "KafkaNetClient", "OffsetAndMetadata", "client_options", "finish_rejoining")


class ImportTests(LiveTestCase):
    def test_several_threads(self) -> None:
        """A reader and a producer that begin at the same time both get it: one that fails would fail for as long as the process lives."""
        for _ in range(3):
            process = self.start([sys.executable, "-c", SCRIPT, *NAMES], "imports", env={"PYTHONPATH": str(ROOT)})
            self.assertEqual(process.wait(PATIENCE), 0, process.output())
            self.assertEqual(process.output().strip(), "[]")
