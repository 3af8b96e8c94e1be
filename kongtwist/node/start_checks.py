"""What would stop a node that starts by a configuration: for ``kongtwist check``, and for the start itself.

Beyond reading the configuration (config/load.py) a start needs plugins, a database's driver, certificates, addresses of this
machine, files it may write, and a declarative file without faults. All of that is tried here with the functions that the
start uses, short of listening and of opening the database; nothing that is made for it stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping

from ..config.authorities import trusted_authorities
from ..config.error_templates import error_templates
from ..config.load import Conf, ConfError
from ..entities import Entity, registry
from ..kafka.libraries import is_installed
from ..net.listeners import check_listeners
from ..net.server_tls import check_tls
from ..observability.log_file import STANDARD_STREAMS
from ..storage.open import check_database
from .log_files import format_faults
from .plugin_loader import PluginLoadError, load_plugins
from .prefix import PID_FILE, try_file, unusable
from .shown_certificate import shown_certificate

__all__ = ["faults", "startup_faults"]


def startup_faults(conf: Conf) -> list[str]:
    """All but the declarative configuration, which a start reads and judges anyway.

    Returns:
        a sentence for each thing that would stop the start.
    """
    # Listeners share properties: what is wrong with one of them is wrong for each, and told once.
    return list(dict.fromkeys(sentence for check in _CHECKS for sentence in check(conf)))


def faults(conf: Conf) -> list[str]:
    """Everything that would stop a start. A text with faults of a declarative file has a line for each of them."""
    found = startup_faults(conf)
    if conf.database == "off" and (conf.declarative_config or conf.declarative_config_string):
        try:
            entities = registry(load_plugins(conf.plugins), conf.router_flavor)
        except PluginLoadError:
            return found  # told already; what is in the file depends on the plugins
        found += _sentences(lambda: _check_declared(conf, entities))
    return found


def _sentences(check: Callable[[], object]) -> tuple[str, ...]:
    try:
        check()
    except ConfError as error:
        return error.problems
    except PluginLoadError as error:
        return (str(error),)
    return ()


# -- the checks --------------------------------------------------------------------------------------------------------


def _check_prefix(conf: Conf) -> Iterator[str]:
    if (error := _prefix_fault(conf)) is not None:
        yield unusable(conf.prefix, error)


def _prefix_fault(conf: Conf) -> OSError | None:
    try:
        try_file(os.path.join(conf.prefix, PID_FILE))
    except OSError as error:
        return error
    return None


def _check_files(conf: Conf) -> Iterator[str]:
    """Logs and the SQLite file. Those in a prefix that cannot be used are not told one by one."""
    below = os.path.join(conf.prefix, "") if _prefix_fault(conf) is not None else None
    wanted = {name: getattr(conf, name) for name in ("proxy_error_log", "proxy_access_log")}
    if conf.admin_listen:
        wanted |= {name: getattr(conf, name) for name in ("admin_access_log", "admin_error_log")}
    if conf.status_listen:
        wanted |= {name: getattr(conf, name) for name in ("status_access_log", "status_error_log")}
    if conf.stream_listen:
        wanted |= {name: getattr(conf, name) for name in ("proxy_stream_access_log", "proxy_stream_error_log")}
    if conf.stream_log_interval:
        wanted["stream_access_log"] = conf.stream_access_log
    if conf.database == "sqlite":
        wanted["sqlite_path"] = conf.sqlite_path
    for name, text in wanted.items():
        path = text.split()[0] if name.endswith("_log") and text.split() else text
        if path == "off" or path in STANDARD_STREAMS or (below is not None and conf.path(path).startswith(below)):
            continue
        try:
            try_file(conf.path(path))
        except OSError as error:
            yield f"{name} cannot open {path}: {error.strerror}"


def _check_plugins(conf: Conf) -> Iterator[str]:
    yield from _sentences(lambda: _load(conf))


def _load(conf: Conf) -> None:
    registry(load_plugins(conf.plugins), conf.router_flavor)


def _check_authorities(conf: Conf) -> Iterator[str]:
    if conf.lua_ssl_trusted_certificate != ["system"]:
        yield from _sentences(lambda: trusted_authorities(conf))


def _check_templates(conf: Conf) -> Iterator[str]:
    yield from _sentences(lambda: error_templates(conf))


def _check_database(conf: Conf) -> Iterator[str]:
    yield from _sentences(lambda: check_database(conf))


def _check_kafka(conf: Conf) -> Iterator[str]:
    if not is_installed(conf.plugin_kafka_client):
        yield (
            f"plugin_kafka_client = {conf.plugin_kafka_client} needs the package confluent-kafka:"
            " pip install 'kongtwist[librdkafka]'"
        )


def _check_certificates(conf: Conf) -> Iterator[str]:
    for name in dict.fromkeys(name for name, listen in conf.listeners() if listen.ssl):
        yield from _sentences(lambda name=name: check_tls(conf, name))  # type: ignore[misc]


def _check_shown_certificate(conf: Conf) -> Iterator[str]:
    yield from _sentences(lambda: shown_certificate(conf, make=False))


def _check_addresses(conf: Conf) -> Iterator[str]:
    yield from check_listeners(conf.listeners())


_CHECKS: tuple[Callable[[Conf], Iterator[str]], ...] = (
    _check_prefix, format_faults, _check_plugins, _check_database, _check_kafka,
    _check_authorities, _check_templates, _check_files, _check_certificates, _check_shown_certificate, _check_addresses,
)  # fmt: skip


def _check_declared(conf: Conf, entities: Mapping[str, Entity]) -> None:
    # Not for every start: they bring readers of YAML with them.
    from .declarative_loader import configured_text, faults_of
    from .declarative_reader import Refusal, Task, judge

    task = Task(configured_text(conf), "", False, time.time())
    try:
        judge(task, entities)
    except Refusal as refusal:
        raise ConfError(faults_of(conf, refusal)) from refusal
