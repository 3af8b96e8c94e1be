"""The Redis client against a server whose bytes the test writes (kongtwist/clients/redis.py)."""

from __future__ import annotations

from typing import Any

from hiredis import ReplyError
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from kongtwist.clients.connections import Connector
from kongtwist.clients.redis import RedisClient, Redises, RedisLimits
from kongtwist.core.chain.host import RedisError, RedisSettings, RedisUnavailable
from tests.unit.clients.log_lines import LogLines
from tests.unit.clients.memory_net import MemoryNet, Names, Wire

PING = b"*1\r\n$4\r\nPING\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


class RedisCase(TestCase):
    """A client without a server."""

    limits = RedisLimits()

    def setUp(self) -> None:
        self.net = MemoryNet()
        self.names = Names()
        self.calls: list[Deferred[Any]] = []
        self.redises = Redises(Connector(self.net, self.names), self.limits)
        self.log = LogLines(self, "kongtwist.redis")

    def client(self, **settings: Any) -> RedisClient:
        """A client of this server."""
        return self.redises.take(RedisSettings(**{"host": "127.0.0.1", "timeout": 2000, **settings}))

    def ready(self, **settings: Any) -> tuple[RedisClient, Wire]:
        """A client whose connection is there."""
        client = self.client(**settings)
        first = client.command("PING")
        wire = self.net.accept()
        self.assertEqual(wire.taken(), PING)
        wire.send(b"+PONG\r\n")
        wire.send(b"+PONG\r\n")
        self.assertEqual(self.successResultOf(first), b"PONG")
        wire.taken()
        wire.writes.clear()
        return client, wire

    def turn(self) -> None:
        """The reactor's next turn."""
        self.net.advance(0)

    def unavailable(self, call: Deferred[Any]) -> str:
        """Why there is no answer."""
        text = str(self.failureResultOf(call, RedisUnavailable).value)
        self.assertTrue(text.startswith("redis "), text)
        return text.partition(": ")[2]

    def ask(self, client: RedisClient) -> None:
        """A call whose answer does not matter."""
        self.calls.append(client.command("GET", "k").addErrback(lambda failure: failure.value))

    def timers(self) -> int:
        return len(self.net.getDelayedCalls())


class CallTests(RedisCase):
    def test_one_write_for_a_turn(self) -> None:
        client, wire = self.ready()
        calls = [client.command("INCR", f"k{n}") for n in range(3)]
        self.assertEqual(wire.writes, [])
        self.turn()
        self.assertEqual(wire.writes, [b"".join(b"*2\r\n$4\r\nINCR\r\n$2\r\nk%d\r\n" % n for n in range(3))])
        wire.send(b":7\r\n:8\r\n:9\r\n")
        self.assertEqual([self.successResultOf(call) for call in calls], [7, 8, 9])

    def test_replies_in_pieces(self) -> None:
        """Byte by byte, and of every kind."""
        client, wire = self.ready()
        call = client.command("EXEC")
        self.turn()
        for byte in b"*5\r\n:1\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n-WRONGTYPE no\r\n":
            self.assertNoResult(call)
            wire.send(bytes([byte]))
        *values, error = self.successResultOf(call)
        self.assertEqual(values, [1, b"a\r\n", None, None])
        self.assertEqual((type(error), str(error)), (ReplyError, "WRONGTYPE no"))

    def test_arguments(self) -> None:
        client, wire = self.ready()
        call = client.command(b"SET", "é", 1, 0.5)
        self.turn()
        self.assertEqual(wire.taken(), b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$1\r\n1\r\n$3\r\n0.5\r\n")
        wire.send(b"+OK\r\n")
        self.assertEqual(self.successResultOf(call), b"OK")

    def test_error(self) -> None:
        client, wire = self.ready()
        first, second = client.command("INCR", "k"), client.command("GET", "k")
        self.turn()
        wire.send(b"-WRONGTYPE Operation against a key\r\n$1\r\nx\r\n")
        error = self.failureResultOf(first, RedisError).value
        self.assertEqual(
            (str(error), error.code), ("redis 127.0.0.1:6379: WRONGTYPE Operation against a key", "WRONGTYPE")
        )
        self.assertNotIsInstance(error, RedisUnavailable)
        self.assertEqual(self.successResultOf(second), b"x")

    def test_cluster(self) -> None:
        """A node of a cluster says where the key is; the error says what to do."""
        client, wire = self.ready()
        call = client.command("GET", "k")
        self.turn()
        wire.send(b"-MOVED 12182 10.0.0.7:7001\r\n")
        error = self.failureResultOf(call, RedisError).value
        self.assertEqual(error.code, "MOVED")
        self.assertIn(
            "the key is kept by 10.0.0.7:7001 (MOVED 12182 10.0.0.7:7001); clusters are not supported", str(error)
        )

    def test_script(self) -> None:
        """By its digest; by its text where the server does not know it."""
        client, wire = self.ready()
        call, other = client.script(b"return 1", [b"k"], [2]), client.command("GET", "k")
        self.turn()
        digest = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        evalsha = b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n" + digest + b"\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\n2\r\n"
        self.assertEqual(wire.taken(), evalsha + GET)
        wire.send(b"-NOSCRIPT No matching script.\r\n")
        self.assertEqual(wire.taken(), b"*5\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\n2\r\n")
        wire.send(b"$1\r\nx\r\n:1\r\n")
        self.assertEqual((self.successResultOf(call), self.successResultOf(other)), (1, b"x"))

    def test_cancelled(self) -> None:
        """Its answer goes to nobody, and the next answer to whom it belongs."""
        client, wire = self.ready()
        first, second = client.command("INCR", "k"), client.command("GET", "k")
        self.turn()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        wire.send(b":1\r\n$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(second), b"x")

    def test_cancelled_before_the_connection_is_there(self) -> None:
        """It is not asked for."""
        client = self.client()
        first, second = client.command("INCR", "k"), client.command("GET", "k")
        wire = self.net.accept()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        wire.taken()
        wire.send(b"+PONG\r\n")
        self.assertEqual(wire.taken(), GET)
        wire.send(b"$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(second), b"x")


class LoginTests(RedisCase):
    def test_all_of_it(self) -> None:
        client = self.client(username="kong", password="secret", database=3)
        call = client.command("GET", "k")
        wire = self.net.accept()
        login = b"*3\r\n$4\r\nAUTH\r\n$4\r\nkong\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
        self.assertEqual(wire.taken(), login + PING)
        wire.send(b"+OK\r\n+OK\r\n")
        self.assertEqual(wire.taken(), b"")
        wire.send(b"+PONG\r\n")
        self.assertEqual(wire.taken(), GET)
        wire.send(b"$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(call), b"x")

    def test_password_alone(self) -> None:
        self.ask(self.client(password="secret"))
        self.assertTrue(self.net.accept().taken().startswith(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"))

    def test_empty_password(self) -> None:
        """Is none, as in Kong; so is a user without one."""
        self.ask(self.client(username="kong", password=""))
        self.assertEqual(self.net.accept().taken(), PING)

    def test_refused(self) -> None:
        """A wrong password, a server that is not ready: no answer, and a pause; the server's text, and what to do."""
        for settings, answers, problem in (
            (
                {"password": "wrong"},
                b"-WRONGPASS invalid pair\r\n-NOAUTH x\r\n",
                "WRONGPASS invalid pair; correct redis.username and redis.password",
            ),
            (
                {"database": 99},
                b"-ERR DB index is out of range\r\n+PONG\r\n",
                "ERR DB index is out of range; correct redis.database",
            ),
            ({"port": 1}, b"-LOADING Redis is loading\r\n", "LOADING Redis is loading"),
            (
                {"port": 2},
                b"-NOAUTH Authentication required.\r\n",
                "NOAUTH Authentication required.; the server demands a password: set redis.password",
            ),
        ):
            client = self.client(**settings)
            calls = [client.command("GET", "k") for _ in range(2)]
            wire = self.net.accept()
            wire.send(answers)
            self.assertEqual([self.unavailable(call) for call in calls], [problem] * 2)
            self.assertTrue(wire.cut)
            self.assertEqual(self.unavailable(client.command("GET", "k")), problem)
            self.assertEqual(self.timers(), 0)

    def test_a_user_who_may_not_ping(self) -> None:
        client = self.client(username="kong", password="secret")
        call = client.command("GET", "k")
        wire = self.net.accept()
        wire.taken()
        wire.send(b"+OK\r\n-NOPERM this user has no permissions to run the 'ping' command\r\n")
        self.assertEqual(wire.taken(), GET)
        wire.send(b"$-1\r\n")
        self.assertIsNone(self.successResultOf(call))


class AwayTests(RedisCase):
    def test_refused_connections(self) -> None:
        """Calls fail at once while a pause runs; then one tries; pauses double."""
        client = self.client()
        calls = [client.command("GET", "k") for _ in range(3)]
        self.assertEqual(self.net.connects(), 1)
        self.net.refuse()
        self.assertEqual([self.unavailable(call) for call in calls], ["connection refused"] * 3)
        for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5):
            self.net.advance(pause - 0.01)
            before = self.net.connects()
            self.assertEqual(self.unavailable(client.command("GET", "k")), "connection refused")
            self.assertEqual(self.net.connects(), before)
            self.net.advance(0.02)
            trying = client.command("GET", "k")
            self.assertEqual(self.net.connects(), before + 1)
            self.assertEqual(self.unavailable(client.command("GET", "k")), "connection refused")
            self.assertNoResult(trying)
            self.net.refuse()
            self.unavailable(trying)
        self.assertEqual(self.timers(), 0)
        self.assertEqual(client.failures, 3 + 3 * 8)

    def test_back_again(self) -> None:
        """The first answer ends it, and pauses begin small again."""
        client = self.client()
        self.unavailable_after_refusal(client)
        self.unavailable_after_refusal(client)
        self.net.advance(5)
        trying = client.command("GET", "k")
        wire = self.net.accept()
        wire.send(b"+PONG\r\n")
        after = client.command("GET", "k")
        self.turn()
        wire.send(b"$1\r\nx\r\n$1\r\ny\r\n")
        self.assertEqual((self.successResultOf(trying), self.successResultOf(after)), (b"x", b"y"))
        wire.end()
        self.unavailable_after_refusal(client)
        self.net.advance(0.11)
        self.ask(client)
        self.assertEqual(self.net.connects(), 5)

    def unavailable_after_refusal(self, client: RedisClient) -> None:
        self.net.advance(5)
        call = client.command("GET", "k")
        self.net.refuse()
        self.unavailable(call)

    def test_no_connection_in_time(self) -> None:
        client = self.client()
        call = client.command("GET", "k")
        self.net.advance(1.9)
        late = client.command("GET", "k")
        self.assertNoResult(call)
        self.net.advance(0.1)
        self.assertEqual([self.unavailable(each) for each in (call, late)], ["no connection within 2 s"] * 2)
        self.assertTrue(self.net.connectors[0].stoppedConnecting or self.net.connectors[0]._disconnected)
        self.assertEqual(self.timers(), 0)

    def test_a_server_that_stands_still(self) -> None:
        """It accepts connections and answers nothing: that is no sign of life, and pauses go on to double."""
        client = self.client()
        call = client.command("GET", "k")
        wire = self.net.accept()
        self.net.advance(2)
        self.assertEqual(self.unavailable(call), "no answer within 2000 ms")
        self.assertTrue(wire.cut)
        self.net.advance(0.11)
        call = client.command("GET", "k")
        self.net.accept()
        self.unavailable(client.command("GET", "k"))
        self.net.advance(2)
        self.unavailable(call)
        self.net.advance(0.19)
        self.unavailable(client.command("GET", "k"))
        self.assertEqual((self.net.connects(), self.timers(), client.failures), (2, 0, 4))

    def test_too_slow(self) -> None:
        """The time of a call counts from the call, however many go before it."""
        client, wire = self.ready()
        first = client.command("GET", "k")
        self.turn()
        self.net.advance(1.5)
        second = client.command("GET", "k")
        self.turn()
        wire.send(b"$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(first), b"x")
        self.net.advance(1.9)
        self.assertNoResult(second)
        self.net.advance(0.1)
        self.assertEqual(self.unavailable(second), "no answer within 2000 ms")
        self.assertTrue(wire.cut)

    def test_a_script_that_is_sent_again_gets_no_further_time(self) -> None:
        client, wire = self.ready()
        call = client.script(b"return 1")
        self.turn()
        self.net.advance(1.5)
        later = client.command("GET", "k")
        self.turn()
        wire.send(b"-NOSCRIPT No matching script.\r\n")
        self.net.advance(0.5)
        self.unavailable(call)
        self.unavailable(later)

    def test_killed_while_it_works(self) -> None:
        """All that wait are told at once; the next call tries again, without a pause."""
        client, wire = self.ready()
        calls = [client.command("GET", "k") for _ in range(3)]
        self.turn()
        wire.send(b"$1\r\nx\r\n$1\r")
        self.assertEqual(self.successResultOf(calls[0]), b"x")
        wire.end()
        self.assertEqual([self.unavailable(call) for call in calls[1:]], ["the connection was closed"] * 2)
        self.ask(client)
        self.assertEqual(self.net.connects(), 2)

    def test_closed_while_logging_in(self) -> None:
        """As by a proxy without a server behind it: a pause follows, for the next connection would fare no better."""
        client = self.client()
        call = client.command("GET", "k")
        self.net.accept().end()
        self.assertIn("the connection was closed; see whether it is a Redis server", self.unavailable(call))
        self.assertIn("the connection was closed", self.unavailable(client.command("GET", "k")))
        self.assertEqual(self.net.connects(), 1)

    def test_closed_while_idle(self) -> None:
        """By a server with a ``timeout``: nothing to tell of, and the next call connects."""
        client, wire = self.ready()
        wire.end()
        call = client.command("GET", "k")
        again = self.net.accept()
        again.send(b"+PONG\r\n$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(call), b"x")
        self.assertEqual(self.log.taken(), [])

    def test_garbage(self) -> None:
        for garbage in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"$-7\r\n",
            b":\x00\r\n",
            b"*4000000000\r\n",
            b"$9999999999999999999999\r\n",
            b"%1\r\n*1\r\n:1\r\n+b\r\n",
        ):
            client, wire = self.ready(port=len(self.redises) + 1)
            call = client.command("GET", "k")
            self.turn()
            wire.send(garbage)
            if call.called:
                self.assertEqual(self.unavailable(call), "what it answers is not RESP")
                self.assertTrue(wire.cut)
                self.assertEqual(self.unavailable(client.command("GET", "k")), "what it answers is not RESP")
            else:  # it may go on
                self.net.advance(2)
                self.unavailable(call)

    def test_an_answer_nobody_asked_for(self) -> None:
        client, wire = self.ready()
        wire.send(b":1\r\n")
        self.assertTrue(wire.cut)
        self.assertEqual(self.unavailable(client.command("GET", "k")), "it answers what was not asked")

    def test_names(self) -> None:
        """Looked up without blocking, within the same time."""
        client = self.client(host="redis.test")
        self.ask(client)
        self.assertEqual(self.net.tcpClients[-1][:2], ("127.0.0.9", 6379))
        for host in ("nowhere.test", "other.test"):
            self.assertEqual(
                self.unavailable(self.client(host=host).command("GET", "k")), "the name cannot be resolved"
            )
        slow = self.client(host="slow.test").command("GET", "k")
        self.net.advance(2)
        self.assertEqual(self.unavailable(slow), "no connection within 2 s")


class BoundTests(RedisCase):
    limits = RedisLimits(calls=3, pending=200, reply=50)

    def test_calls(self) -> None:
        client, wire = self.ready()
        waiting = [client.command("GET", "k") for _ in range(3)]
        self.assertEqual(self.unavailable(client.command("GET", "k")), "3 calls wait for an answer already")
        self.turn()
        wire.send(b"$1\r\nx\r\n")
        self.assertEqual(self.successResultOf(waiting[0]), b"x")
        self.ask(client)
        self.unavailable(client.command("GET", "k"))

    def test_bytes(self) -> None:
        client, wire = self.ready()
        waiting = client.command("SET", "k", b"v" * 150)
        self.unavailable(client.command("SET", "k", b"v" * 50))
        self.turn()
        wire.send(b"+OK\r\n")
        self.successResultOf(waiting)
        self.calls.append(client.command("SET", "k", b"v" * 150).addErrback(lambda failure: failure.value))
        self.unavailable(client.command("SET", "k", b"v" * 50))

    def test_bytes_are_free_again_after_a_loss(self) -> None:
        client, wire = self.ready()
        self.failureResultOf_after(client.command("SET", "k", b"v" * 150), wire)
        self.calls.append(client.command("SET", "k", b"v" * 150).addErrback(lambda failure: failure.value))
        self.assertEqual(self.net.connects(), 2)

    def failureResultOf_after(self, call: Deferred[Any], wire: Wire) -> None:
        self.turn()
        wire.end()
        self.unavailable(call)

    def test_answers(self) -> None:
        client, wire = self.ready()
        call = client.command("GET", "k")
        self.turn()
        wire.send(b"$100\r\n" + b"x" * 40)
        self.assertNoResult(call)
        wire.send(b"x" * 40)
        self.assertEqual(self.unavailable(call), "an answer of more than 50 bytes")
        self.assertTrue(wire.cut)


class LogTests(RedisCase):
    def test_one_line_a_minute(self) -> None:
        client = self.client()
        for _ in range(4):
            call = client.command("GET", "k")
            self.net.refuse()
            self.unavailable(call)
            self.unavailable(client.command("GET", "k"))
            self.net.advance(10)
        self.assertEqual(self.log.taken(), ["error redis 127.0.0.1:6379: connection refused (1 calls failed)"])
        self.net.advance(20)
        call = client.command("GET", "k")
        self.net.refuse()
        self.unavailable(call)
        self.assertEqual(self.log.taken(), ["error redis 127.0.0.1:6379: connection refused (8 calls failed)"])
        self.net.advance(5)
        call = client.command("GET", "k")
        self.net.accept().send(b"+PONG\r\n$-1\r\n")
        self.successResultOf(call)
        self.assertEqual(self.log.taken(), ["info redis 127.0.0.1:6379 answers again"])


class CloseTests(RedisCase):
    def test_connected(self) -> None:
        client, wire = self.ready()
        call = client.command("GET", "k")
        self.redises.give(client)
        self.assertEqual(self.unavailable(call), "closed")
        self.assertEqual(self.unavailable(client.command("GET", "k")), "closed")
        self.assertEqual((wire.cut, self.timers(), self.net.connects()), (True, 0, 1))
        self.assertEqual(self.log.taken(), [])

    def test_while_connecting(self) -> None:
        client = self.client()
        call = client.command("GET", "k")
        self.redises.give(client)
        self.assertEqual(self.unavailable(call), "closed")
        self.assertTrue(self.net.accept().cut)  # where it comes all the same
        self.assertEqual(self.timers(), 0)

    def test_while_a_name_is_looked_up(self) -> None:
        client = self.client(host="slow.test")
        call = client.command("GET", "k")
        self.redises.give(client)
        self.unavailable(call)
        self.assertTrue(self.names.waiting[0].called)
        self.assertEqual((self.timers(), self.net.connects()), (0, 0))

    def test_while_logging_in(self) -> None:
        client = self.client(password="secret")
        call = client.command("GET", "k")
        wire = self.net.accept()
        self.redises.give(client)
        self.unavailable(call)
        self.assertEqual((wire.cut, self.timers()), (True, 0))

    def test_shared_by_equal_settings(self) -> None:
        first, again, other = self.client(), self.client(), self.client(database=1)
        self.assertIs(first, again)
        self.assertIsNot(first, other)
        self.redises.give(first)
        call = again.command("GET", "k")
        self.assertNoResult(call)
        self.redises.give(again)
        self.unavailable(call)
        self.assertEqual(len(self.redises), 1)
        self.redises.give(first)  # once too often
        self.redises.close()
        self.assertEqual(len(self.redises), 0)
        self.assertEqual(self.unavailable(other.command("GET", "k")), "closed")
