"""The service of a whole node under twistd: its prefix, its signals, and the gateway.

Everything that can refuse to start does so in `make_node`, before the process goes to the background.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from .. import KONG_VERSION, VERSION
from ..config.load import Conf, ConfError, differences, load, reloaded
from ..net.listener_changes import take_listeners
from ..net.listeners import SERVED_BY_WORKERS, Opened, open_listeners, raise_descriptor_limit
from ..net.server_tls import contexts_for
from ..observability.error_log import ErrorLog, notice
from .debug_token import renew_debug_token, tell_debug_token
from .gateway import Gateway
from .graceful_shutdown import Drain
from .hand_over import HandOver
from .launching import TAKE_OVER, Launch
from .log_files import error_log_for
from .outcomes import Drained, Outcome, forget_outcomes, take_drain_order, write_drained, write_outcome
from .plugin_loader import PluginLoadError
from .prefix import Prefix
from .rows_access import Questions
from .service_manager import ServiceManager
from .signals import SignalDuties
from .start_checks import startup_faults
from .take_over import Successor
from .worker_link import Message

__all__ = ["READY_FD", "NodeService", "make_node", "tell_starter"]

READY_FD = "KONGTWIST_READY_FD"
"""Environment variable with the descriptor that ``kongtwist start`` reads: ``ready``, or why the start failed."""

ABORT_SECONDS = 3.0
"""Seconds that a forced stop has to close what it holds."""

_log = Logger(namespace="kongtwist.node")


def tell_starter(word: str) -> None:
    """Tell whoever started this process, and waits, how it went."""
    starter = int(os.environ.pop(READY_FD, "-1"))
    if starter >= 0:
        os.write(starter, word.encode())
        os.close(starter)


def make_node(reactor: Any, conf_file: str | None, prefix_option: str | None, demo: bool) -> NodeService:
    """Make a node's service, and open its listeners.

    Args:
        reactor: the reactor in use.
        conf_file: the configuration file; None for the usual ones.
        prefix_option: the working directory that the command line names.
        demo: start the demo's upstreams, too.

    Raises:
        ConfError: something configured cannot be used.
        PluginLoadError: a plugin cannot be loaded.
    """
    overrides = {"prefix": prefix_option} if prefix_option else {}
    conf = load(conf_file, overrides=overrides)
    if problems := startup_faults(conf):
        raise ConfError(*conf.tellable(problems))
    raise_descriptor_limit(conf.nginx_main_worker_rlimit_nofile)
    successor = Successor.begin(conf.prefix) if os.environ.pop(TAKE_OVER, "") else None
    prefix = Prefix.claim(conf.prefix) if successor is None else Prefix(conf.prefix, successor.prefix_fd, shared=True)
    opened: list[Opened] = []
    try:
        if successor is None:
            forget_outcomes(conf.prefix)
            opened = open_listeners(conf.listeners(), conf.nginx_worker_processes)
        else:
            opened = take_listeners(conf.listeners(), successor.listeners, conf.nginx_worker_processes)
            successor.close_unwanted()
        for name in {each.name for each in opened if each.listen.ssl}:
            contexts_for(conf, name)  # certificates that cannot be used are to be told of here
        if successor is None:
            renew_debug_token(conf)
        node = NodeService(reactor, conf, prefix, opened, error_log_for(conf), overrides, successor)
        node.gateway = Gateway(reactor, conf, sockets=opened, demo=demo, fatal=node.fail, successor=successor)
        node.gateway.state.error_log = node.error_log
        # That it cannot start is told to `NodeService.fail`.
        node.gateway.ready.addCallbacks(lambda _: node.serves(), lambda _: None)
    except (ConfError, PluginLoadError):
        for each in opened:
            each.close()
        if successor is not None:
            successor.forget()
        prefix.release()
        raise
    return node


def _listening(opened: Opened) -> str:
    """Where an API is reached."""
    scheme = "https" if opened.listen.ssl else "http"
    what = {
        "proxy_listen": "proxy", "stream_listen": "streams", "admin_listen": "Admin API", "status_listen": "Status API",
    }[opened.name]  # fmt: skip
    if opened.name == "stream_listen":
        scheme = "udp" if opened.listen.udp else "tls" if opened.listen.ssl else "tcp"
    address = opened.address if opened.listen.path else f"{scheme}://{opened.address}"
    return f"{what} listens on {address}"


class NodeService(Service):
    """A node under twistd: its prefix, its signals, and the gateway.

    Args:
        reactor: the reactor in use.
        conf: the configuration.
        prefix: the claimed working directory.
        opened: the listeners' open sockets.
        error_log: where all that is logged in this process goes, beside twistd's own log.
        overrides: what the command line said, for reading the configuration again.
        successor: this process takes over from another one.
    """

    gateway: Any

    def __init__(
        self,
        reactor: Any,
        conf: Conf,
        prefix: Prefix,
        opened: list[Opened],
        error_log: ErrorLog,
        overrides: dict[str, str],
        successor: Successor | None = None,
    ) -> None:
        self._reactor = reactor
        self._conf = conf
        self._prefix = prefix
        self._opened = opened
        self._held: list[Opened] = []
        self._told: list[str] = []
        self.error_log = error_log
        self._overrides = overrides
        self._forced: Deferred[None] = Deferred()
        self._observer: ILogObserver | None = None
        self._failed = self._forcing = self._ending = False
        self._outcome = Outcome(source=conf.source)
        self._reloads = False
        self._starter = int(os.environ.pop(READY_FD, "-1"))
        self._manager = ServiceManager(os.environ)
        self._duties = SignalDuties(
            reactor, stop=self._stop, force=self._force, reload=self.reload, reopen_logs=self._reopen_logs,
            drain=self.drain,
        )  # fmt: skip
        self._drain: Drain | None = None
        self._successor = successor
        self._predecessor: Successor | None = None
        self._all_end = False
        self._retiring: Deferred[None] | None = None
        self._hand_over = HandOver(reactor, prefix.path, self, Launch(conf, self._manager))
        self.setName("kongtwist")

    # -- life --------------------------------------------------------------------------------------------------------

    def show(self, observer: ILogObserver, console: bool) -> None:
        """Show what happens in the foreground, in place of twistd's own log.

        Args:
            observer: shows it.
            console: it is a console; no where the error log goes to standard output already.
        """
        self.gateway.state.console = console
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Called by twistd with the application; its log observer is the one twistd takes (twisted.application.app)."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Called in the process that stays, with its first privileges."""
        if self._successor is None:
            self._prefix.write_pid()

    def startService(self) -> None:
        """Start the gateway. A signal that comes before the reactor runs waits until it does."""
        self._duties.install()
        super().startService()
        globalLogPublisher.addObserver(self.error_log)
        if self._successor is None:
            self._tell()
        else:
            self._successor.attach(self._reactor)
        self._say_hello()
        self._reactor.callWhenRunning(self._duties.install)
        self.gateway.startService()

    def stopService(self) -> Deferred[None]:
        """Stop the gateway gracefully: within ``nginx_main_worker_shutdown_timeout``, or at once when forced."""
        super().stopService()
        before = self._predecessor
        if self._failed and before is not None and before.watches:
            self._own(shared=True)  # it serves again
        elif not self._hand_over.left:
            self._manager.tell_stopping()
        self._hand_over.stop()
        if self._drain is not None:
            self._drain.stop()
        workers = self.gateway.workers is not None
        # Those of workers the gateway shuts itself, by their numbers: these must not be anybody else's by then.
        self._held = [each for each in self._opened if workers and each.name in SERVED_BY_WORKERS]
        for each in self._opened:  # the gateway stops its own duplicates; nobody new is to wait in a backlog
            if each not in self._held:
                each.close()
        stopped: Deferred[Any] = maybeDeferred(self.gateway.stopService).addErrback(self._complain)
        if before is not None and not self._failed:
            all_end = self._all_end or not self._hand_over.left
            stopped = DeferredList([stopped, Deferred.fromCoroutine(before.end(all_end))])
        # The gateway keeps to its deadline itself; this is for one that cannot.
        self._late = self._reactor.callLater(self._conf.nginx_main_worker_shutdown_timeout + ABORT_SECONDS, self._force)
        first = DeferredList([stopped, self._forced], fireOnOneCallback=True)
        return first.addCallback(self._stopped)

    def _complain(self, failure: Failure, what: str = "stopping") -> None:
        _log.failure("{what} failed", failure, what=what)

    def _stopped(self, result: tuple[object, int]) -> None:
        """The gateway has stopped (0), or has not even when forced to (1)."""
        if self._late.active():
            self._late.cancel()
        for each in self._held:
            each.close()
        self._prefix.release()
        self._duties.uninstall()
        notice(_log, "stopped")
        globalLogPublisher.removeObserver(self.error_log)
        self.error_log.close()
        if result[1]:
            os._exit(1)  # a thread that hangs would keep the process alive

    def _stop(self) -> None:
        if self._ending:
            self._force()
            return
        self._ending = True
        self._reactor.stop()  # runs stopService and waits for it

    def _force(self) -> None:
        """End what the graceful stop waits for; if it still does not come to its end, leave."""
        self.gateway.abort()
        if not self._forcing:
            self._forcing = True
            self._reactor.callLater(ABORT_SECONDS, self._forced.callback, None)

    def fail(self, sentence: str) -> None:
        """The gateway cannot go on: say why and end the process with exit code 1."""
        _log.critical("{sentence}", sentence=sentence)
        self.tell_starter(sentence)
        if not self._failed:
            self._failed = True
            self._reactor.callWhenRunning(self._stop_failed, sentence)

    def serves(self) -> None:
        """The gateway serves. What was another process's is this one's now."""
        successor, self._successor = self._successor, None
        if successor is not None:
            self._predecessor = successor
            self._own(shared=False)
            self._into_prefix(lambda: forget_outcomes(self._prefix.path))
            self._tell()
            self._into_prefix(self._prefix.write_pid)  # behind them: who reads it finds the outcomes of this process
            successor.serves()
        self._hand_over.listen()
        self.tell_starter("ready")

    def _own(self, shared: bool) -> None:
        """Say whether listening sockets and the prefix are another process's, too: then nothing of them is taken away."""
        self._prefix.shared = shared
        for each in self._opened:
            each.shared = shared
        if self.gateway.workers is not None:
            self.gateway.workers.shared = shared

    def tell_starter(self, word: str) -> None:
        """Tell ``kongtwist start``, or the service manager, if one of them waits, how the start went."""
        if word == "ready":
            self._manager.tell_ready()
        else:
            self._manager.tell_failed(word)
        starter, self._starter = self._starter, -1
        if starter >= 0:
            os.write(starter, word.encode())
            os.close(starter)

    def _stop_failed(self, sentence: str) -> None:
        # twistd returns 0 whatever happened; what it still does after the reactor has stopped must not be cut off.
        def leave() -> None:
            print(f"kongtwist: {sentence}", file=sys.__stderr__, flush=True)
            os._exit(1)

        atexit.register(leave)
        self._stop()

    # -- while it runs -----------------------------------------------------------------------------------------------

    def _say_hello(self) -> None:
        notice(_log, "kongtwist {version}, compatible with Kong {kong}", version=VERSION, kong=KONG_VERSION)
        notice(_log, "configuration: {source}", source=self._conf.source or "defaults and environment, no file")
        notice(_log, "prefix: {prefix}", prefix=self._conf.prefix)
        tell_debug_token(self._conf)
        self._say_news()

    def _say_news(self) -> None:
        """Where is listened, and what is to be warned of, as far as that was not told before."""
        before, self._told = self._told, [*map(_listening, self._opened), *self._conf.warnings]
        for each in self._opened:
            if _listening(each) not in before:
                notice(_log, "{sentence}", sentence=_listening(each))
        for sentence in self._conf.warnings:
            if sentence not in before:
                _log.warn("{sentence}", sentence=sentence)

    def reload(self) -> None:
        """Read the configuration again, put into effect what can be, and say what needs a restart. One after the other."""
        if self._hand_over.left:  # what is said in the prefix is the other process's
            _log.warn("nothing is reloaded here: another process has taken over, and is the node")
            return
        self._outcome = self._outcome._replace(asked=self._outcome.asked + 1)
        self._tell()
        if not self._reloads:
            self._reloads = True
            self._reloading = Deferred.fromCoroutine(self._reload_all()).addErrback(self._complain, "reloading")

    async def _reload_all(self) -> None:
        try:
            while (number := self._outcome.asked) > self._outcome.number:
                outcome = await self._reload()  # what is asked for from now on is another one
                self._outcome = outcome._replace(asked=self._outcome.asked, number=number, source=self._conf.source)
                self._tell()
        finally:
            self._reloads = False

    async def _reload(self) -> Outcome:
        try:
            if self._hand_over.busy:
                raise ConfError("the node restarts; try again when that is over")
            new = load(self._conf.source, overrides=self._overrides)
            changed, later = differences(self._conf, new)
            conf = reloaded(self._conf, new)
            error_log = error_log_for(conf)
            try:
                await self.gateway.reload(conf)
            except ConfError as error:
                error_log.close()
                raise ConfError(*conf.tellable(error.problems)) from None
        except ConfError as error:
            _log.error("reload refused, everything stays as it was: {error}", error=error)
            return Outcome(error=str(error))
        self._conf, self._opened = conf, list(self.gateway.opened)
        self.error_log.become(error_log)
        what = f"changed: {', '.join(changed)}" if changed else "no property has changed"
        notice(_log, "reloaded; {what}", what=what)
        self._say_news()
        renew_debug_token(conf)
        tell_debug_token(conf)
        if later:
            _log.warn("these take effect at the next start: {names}", names=", ".join(later))
        self._reopen_logs()
        return Outcome(later=tuple(later))

    def _tell(self) -> None:
        """Tell ``kongtwist reload`` how it went."""
        self._into_prefix(lambda: write_outcome(self._prefix.path, self._outcome))

    def _into_prefix(self, write: Callable[[], None]) -> None:
        """Write something there; where that cannot be, the node goes on all the same."""
        try:
            write()
        except OSError as error:
            _log.error("cannot write into prefix {path}: {why}", path=self._prefix.path, why=error.strerror)

    def drain(self) -> None:
        """Go out of rotation, if ``kongtwist drain`` has left an order to."""
        if self._hand_over.left:  # the order is for the process that has taken over
            return
        try:
            order = take_drain_order(self._prefix.path)
        except OSError as error:
            _log.error("cannot read in prefix {path}: {why}", path=self._prefix.path, why=error.strerror)
            return
        if order is None or not self.running:
            return
        if not order.stop:
            self.gateway.state.drain()
            return
        if self._drain is None:
            self._hand_over.refuse("the node is being drained; it stops when that is over")
            self._drain = Drain(self._reactor, self.gateway, self._stop_listening, self._drained)
        self._drain.begin(order)

    def _stop_listening(self) -> None:
        """Let go of the proxy's listening sockets, unless workers have copies (these the gateway shuts)."""
        if self.gateway.workers is None:
            for each in self._opened:
                if each.name in SERVED_BY_WORKERS:
                    each.close()
            self._opened = [each for each in self._opened if each.name not in SERVED_BY_WORKERS]

    def _drained(self, drained: Drained) -> None:
        self._into_prefix(lambda: write_drained(self._prefix.path, drained))
        self._stop()

    # -- handing over (hand_over.Leaving) ------------------------------------------------------------------------------

    @property
    def opened(self) -> list[Opened]:
        """The open listeners."""
        return self._opened

    @property
    def locks(self) -> list[int]:
        """Descriptors of the locks: that of the prefix, and the database's if it has one."""
        return [fd for fd in (self._prefix.fileno(), self.gateway.storage.lock()) if fd >= 0]

    def stream_ends(self) -> list[int]:
        """See `Changeover.stream_ends`."""
        return list(self.gateway.changeover.stream_ends())

    def why_not(self) -> str | None:
        """Why nothing can be handed over now; None when it can."""
        if self._ending or self._failed:
            return "the node is being stopped"
        if self._drain is not None:
            return "the node is being drained; it stops when that is over"
        if self._reloads:
            return "the node reloads; try again when that is over"
        if not self.gateway.ready.called:
            return "the node is only starting; try again"
        if os.getpid() == 1:
            return "the node is the first process of a container, which ends with it; start another container, and stop this one"
        return None

    async def pause(self) -> bool:
        """See `Changeover.pause`."""
        return bool(await self.gateway.changeover.pause())

    def unpause(self) -> None:
        """See `Changeover.unpause`."""
        if not self._ending:
            self.gateway.changeover.unpause()

    def kept(self) -> Iterator[Message]:
        """See `Changeover.kept`."""
        kept: Iterator[Message] = self.gateway.changeover.kept()
        return kept

    def leave_to(self, pid: int, questions: Questions) -> None:
        """Leave everything to another process, and end when all streams have."""
        seconds = self._conf.goodbye_deadline
        notice(
            _log,
            "process {pid} serves from now on; what is open here has {seconds:g} s to end",
            pid=pid,
            seconds=seconds,
        )
        self._own(shared=True)
        self._manager.tell_main(pid)
        retiring = self._retiring = Deferred.fromCoroutine(self._leave(questions, seconds))
        retiring.addCallbacks(lambda _: self._stop(), self._not_left)  # type: ignore[unused-awaitable]

    async def _leave(self, questions: Questions, seconds: float) -> None:
        await self.gateway.changeover.leave_to(questions, seconds)
        await self._hand_over.told()

    def _not_left(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("saying goodbye failed", failure)
            self._stop()

    async def serve_again(self) -> None:
        """The other process is dead: be the node again."""
        if self._ending:
            return
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
        self._own(shared=False)
        self._into_prefix(self._prefix.write_pid)
        self._manager.tell_main(os.getpid())
        await self.gateway.changeover.serve_again()
        self._tell()

    def end_too(self) -> None:
        """The process that has taken over is being stopped, and with it the node."""
        self._all_end = True
        if not self._ending:
            self._stop()

    def _reopen_logs(self) -> None:
        try:
            self.error_log.reopen()
        except OSError as error:
            _log.error("cannot reopen the error log {path}: {why}", path=self.error_log.path, why=error.strerror)
        self.gateway.reopen_logs()
