"""The node's configuration: kong.conf and the environment, read into one typed object.

One file is read: the one named, else the first that is there of `SEARCHED`. ``KONG_<NAME>`` environment variables are
stronger than the file, what is given on the command line stronger than both. Names and wording are Kong 3.9's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..entities.references import environment_secret, parse_reference
from .admin_properties import origin_of
from .former_properties import is_former, is_idle, refusal, remedy
from .kinds import KNOWN, ConfError, Listen, Property, items
from .properties import Properties, properties
from .reference_faults import without_secrets

__all__ = ["SEARCHED", "Conf", "ConfError", "Listen", "differences", "load", "only_live", "reloaded"]

SEARCHED = ("/etc/kongtwist/kongtwist.conf", "/etc/kong/kong.conf")
"""Where a configuration file is looked for when none is named; the first that is there is read, alone."""

DIRECTIVE = re.compile(
    r"nginx_(main|events|http|upstream|proxy|location|status|admin|stream|supstream|sproxy|wasm|wasm_[a-z]+)_([a-z0-9_]+)"
)
_DYNAMIC = re.compile(r"(vault|pluginserver)_[a-z0-9_]+_[a-z0-9_]+|cluster_telemetry_[a-z_]+")
_PROTECTING = frozenset({
    "access_by_lua", "access_by_lua_block", "access_by_lua_file",
    "allow", "auth_basic", "auth_basic_user_file", "auth_jwt", "auth_request", "deny", "include", "internal",
    "limit_conn", "limit_except", "limit_rate", "limit_req",
    "modsecurity", "modsecurity_rules", "modsecurity_rules_file", "proxy_ssl_verify", "satisfy", "ssl_client_certificate",
    "ssl_crl", "ssl_verify_client",
})  # fmt: skip
"""nginx directives that keep somebody out: going on without them would open what was meant to be closed."""

SECRET = re.compile(r"_password$|_cert_key$|^proxy_server$|^declarative_config_string$|_token$")
"""Names of properties whose values are never shown."""


class Conf(Properties):
    """A configuration: each property's typed value is an attribute of its name.

    Args:
        texts: property name -> text, of those that were set.
        source: the file that was read, or None.

    Raises:
        ConfError: a value is wrong; with a sentence for each.
    """

    def __init__(self, texts: Mapping[str, str] | None = None, source: str | None = None) -> None:
        self.source = source  #: path of the file that was read, or None
        self.given = dict(texts or {})  #: what was set: property name -> text
        self.warnings: list[str] = []  #: sentences for the log
        self.references: dict[str, str] = {}  #: property name -> text with references, of those that had some
        self.vault_env_prefix = ""  #: put before the names of ``{vault://env/...}``
        problems: list[str] = []
        for name, each in properties().items():
            text = self.given.get(name) or each.default
            try:
                self.__dict__[name] = _unset(each) if text is None else each.read(text)
            except ValueError as error:
                problems.append(f"{name} {error}")
        if not problems:
            problems.extend(_contradictions(self))
        if problems:
            raise ConfError(*problems)
        self.prefix = os.path.abspath(self.prefix)

    def tellable(self, problems: Sequence[str]) -> tuple[str, ...]:
        """Sentences about this configuration without what its references stand for."""
        return without_secrets(problems, self.references, self.given)

    def path(self, name: str) -> str:
        """The path of something a node writes, relative ones taken from prefix."""
        return os.path.join(self.prefix, name)

    @property
    def admin_gui_origin(self) -> list[str]:
        """The origins of the pages of ``admin_gui_url``, as browsers write them."""
        return list(dict.fromkeys(origin_of(url) for url in self.admin_gui_url))

    def listeners(self) -> Iterator[tuple[str, Listen]]:
        """All addresses to listen on, with the name of their property."""
        for name in ("proxy_listen", "stream_listen", "admin_listen", "status_listen"):
            for listen in getattr(self, name):
                yield name, listen


def _unset(declaration: Property[Any]) -> Any:
    """What a property without value and default is: an empty list for lists, else None."""
    return [] if declaration.kind.name.startswith("list") else None


def _contradictions(conf: Conf) -> Iterator[str]:
    """Sentences about values that do not go together."""
    for name in ("ssl_cert", "admin_ssl_cert", "status_ssl_cert"):
        certificates, keys = getattr(conf, name), getattr(conf, f"{name}_key")
        if len(certificates) != len(keys):
            missing, found = (f"{name}_key", name) if certificates and not keys else (name, f"{name}_key")
            if not certificates or not keys:
                yield f"{missing} must be set, as {found} is"
            else:
                yield f"{name} has {len(certificates)} entries and {name}_key has {len(keys)}; they must be as many"
    yield from _open_admin(conf)
    if conf.database != "off" and (conf.declarative_config or conf.declarative_config_string):
        yield "declarative_config needs database = off"
    if conf.declarative_config and conf.declarative_config_string:
        yield "declarative_config and declarative_config_string cannot both be set"
    if conf.client_ssl and bool(conf.client_ssl_cert) != bool(conf.client_ssl_cert_key):
        missing, found = ("_key", "") if conf.client_ssl_cert else ("", "_key")
        yield f"client_ssl_cert{missing} must be set, as client_ssl_cert{found} is"
    if conf.ssl_cipher_suite == "custom" and not conf.ssl_ciphers:
        yield "ssl_ciphers must be set for ssl_cipher_suite = custom"
    if not conf.admin_gui_path.startswith("/") or (len(conf.admin_gui_path) > 1 and conf.admin_gui_path.endswith("/")):
        yield f"admin_gui_path must start with a slash and not end with one: '{conf.admin_gui_path}'"
    if conf.given.get("dns_hostsfile") and conf.dns_client == "dns" and not os.path.isfile(conf.dns_hostsfile):
        yield f"dns_hostsfile: file does not exist: {conf.dns_hostsfile}"
    taken: dict[tuple[str, bool], str] = {}
    for name, listen in conf.listeners():
        if listen.path or listen.port:
            other = taken.setdefault((listen.address, listen.udp), name)
            if other != name:
                yield f"{name} and {other} name the same address: '{listen.address}'"
    yield from _clashes(list(conf.listeners()))


def _clashes(listeners: Sequence[tuple[str, Listen]]) -> Iterator[str]:
    """Sentences about addresses that cannot be listened on together: one takes all addresses of the other's port."""
    for at, (name, listen) in enumerate(listeners):
        for other_name, other in listeners[at + 1 :]:
            if listen.address != other.address and listen.clashes(other):
                one, two = f"{name} '{listen.address}'", f"{other_name} '{other.address}'"
                yield f"{one} and {two} name the same port; give one of them another port, or leave it out"


def _open_admin(conf: Conf) -> Iterator[str]:
    """Sentences about addresses that ``admin_ssl_client_ca`` would not guard."""
    if not conf.admin_ssl_client_ca or not conf.admin_listen:
        return
    wide = [each for each in conf.admin_listen if each.wide and not each.ssl]
    if wide:
        names = ", ".join(each.address for each in wide)
        yield f"admin_ssl_client_ca would not guard {names} of admin_listen, which has no TLS; add the flag ssl to it"
    elif not any(each.ssl for each in conf.admin_listen):
        yield "admin_ssl_client_ca needs an address of admin_listen with the flag ssl"


# -- reading ---------------------------------------------------------------------------------------------------------


def load(
    conf_file: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    searched: Sequence[str] = SEARCHED,
) -> Conf:
    """Read the configuration.

    Args:
        conf_file: the file to read; without it the first of ``searched`` that is there.
        environ: environment variables; those of the process when None.
        overrides: property name -> text from the command line.
        searched: files to look for.

    Raises:
        ConfError: with one sentence for each thing that is wrong.
    """
    environ = os.environ if environ is None else environ
    source = conf_file or next((path for path in searched if os.path.exists(path)), None)
    if conf_file and not os.path.exists(conf_file):
        raise ConfError(f"no file at: {conf_file}")
    from_file = _read_file(source) if source else {}
    names = _names()
    strangers, problems = _strangers(from_file, environ, names, source)
    from_environ = {
        name[5:].lower(): value.strip()
        for name, value in environ.items()
        if name.startswith("KONG_") and (name[5:].lower() in names or _is_dynamic(name[5:].lower()))
    }
    known = {name: text for name, (text, _) in from_file.items() if name in names or _is_dynamic(name)}
    layers: list[Mapping[str, str]] = [known, from_environ]
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    for layer in (*layers, overrides or {}):
        _merge(layer, names, texts, others)
    problems += _refused_directives(others)
    references = {name: text for name, text in texts.items() if "{vault://" in text}
    prefix = others.get("vault_env_prefix", environ.get("KONG_VAULT_ENV_PREFIX", ""))
    _resolve_references(texts, prefix, environ, problems)
    if problems:
        problems += _remaining_problems(texts, source)
        raise ConfError(*without_secrets(problems, references, texts))
    try:
        conf = Conf(texts, source)
    except ConfError as error:
        raise ConfError(*without_secrets(error.problems, references, texts)) from None
    conf.references, conf.vault_env_prefix = references, prefix
    others = {name: text for name, text in others.items() if remedy(name, _targets(names)) is None}
    conf.warnings += [*strangers, *_warnings(conf, others)]
    return conf


def _remaining_problems(texts: Mapping[str, str], source: str | None) -> tuple[str, ...]:
    """What else is wrong, so that one run shows everything."""
    try:
        Conf(texts, source)
    except ConfError as error:
        return error.problems
    return ()


def _names() -> dict[str, tuple[str, int]]:
    """All names that set a property: name -> (the property, strength among the names of that property)."""
    found: dict[str, tuple[str, int]] = {}
    for name, each in properties().items():
        found[name] = (name, 0)
        for strength, alias in enumerate(each.aliases, 1):
            found[alias] = (name, strength)
    return found


def _merge(
    layer: Mapping[str, str], names: Mapping[str, tuple[str, int]], texts: dict[str, str], others: dict[str, str]
) -> None:
    """Lay one source over those before it. An empty value, or NONE for an nginx directive, unsets a property."""
    strengths: dict[str, int] = {}
    for name, text in layer.items():
        if name not in names:
            others[name] = text
            continue
        target, strength = names[name]
        if strength < strengths.get(target, -1):
            continue
        strengths[target] = strength
        texts[target] = "" if text == "NONE" and name.startswith("nginx_") else text


def _read_file(path: str) -> dict[str, tuple[str, int]]:
    """The settings of a file: name -> (text, line number). Raises ConfError."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfError(f"cannot read {path}: {why}") from error
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(lines, 1):
        if not (text := _without_comment(line).strip()):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            word = re.split(r"[\s:]", text)[0][:40]  # no more: what follows may be a secret
            raise ConfError(f"{path} line {number}: expected 'name = value': '{word}'")
        found[name.strip()] = (value.strip(), number)
    return found


def _without_comment(line: str) -> str:
    r"""A line up to its comment; ``\#`` is a plain number sign."""
    return re.sub(r"(?<!\\)#.*", "", line).replace("\\#", "#")


def _is_dynamic(name: str) -> bool:
    return bool(DIRECTIVE.fullmatch(name) or _DYNAMIC.fullmatch(name))


def _targets(names: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Names that set a property -> the property."""
    return {name: target for name, (target, _) in names.items()}


def _strangers(
    from_file: Mapping[str, tuple[str, int]],
    environ: Mapping[str, str],
    names: Mapping[str, tuple[str, int]],
    source: str | None,
) -> tuple[list[str], list[str]]:
    """(warnings, problems) about names that set no property, as Kong would read over them. A name that is almost one of a
    property is a slip of the pen, and stops the start."""
    found = [(name, text, f"{source} line {line}") for name, (text, line) in from_file.items() if name not in names]
    found += [
        (name, text.strip(), f"KONG_{name.upper()}")
        for name, text in ((each[5:].lower(), text) for each, text in environ.items() if each.startswith("KONG_"))
        if is_former(name) and name not in names
    ]
    warnings, problems, targets = [], [], _targets(names)
    for name, text, where in found:
        instead = remedy(name.lower(), targets)
        if why := refusal(name.lower(), text):
            problems.append(f"{where}: {why}")
        elif instead is not None:
            if not is_idle(name.lower(), text):
                warnings.append(f"{where}: {name} has no effect; {instead}")
        elif _is_dynamic(name):
            continue
        elif near := get_close_matches(name.lower(), names, 1, 0.85):
            problems.append(f"{where}: there is no property '{name}'; did you mean '{near[0]}'?")
        else:
            warnings.append(f"{where}: there is no property '{name}'; it has no effect")
    return warnings, problems


# -- what is not built -----------------------------------------------------------------------------------------------


def _refused_directives(others: Mapping[str, str]) -> list[str]:
    return [
        f"{name} is not built yet, and going on without it could let in what it keeps out"
        for name, text in sorted(others.items())
        if text and (match := DIRECTIVE.fullmatch(name)) and match[2] in _PROTECTING
    ]


def _warnings(conf: Conf, others: Mapping[str, str]) -> list[str]:
    unbuilt = [
        name
        for name, each in properties().items()
        if each.status == KNOWN and not each.why and (text := conf.given.get(name)) and _differs(each, text)
    ]
    unbuilt += [name for name, text in others.items() if text and not name.startswith("vault_env_")]
    found = [
        f"{name} has no effect here: {each.why}"
        for name, each in properties().items()
        if each.why and (text := conf.given.get(name)) and _differs(each, text)
    ]
    if unbuilt:
        found.append(f"known to Kong and without effect here yet: {', '.join(sorted(unbuilt))}")
    if not conf.pg_ro_host:
        found += [
            f"{name} has no effect without pg_ro_host"
            for name, text in conf.given.items()
            if name.startswith("pg_ro_") and text
        ]
    if conf.admin_gui_listen:
        found.append("the browser console is not built yet; nothing listens on admin_gui_listen")
    if conf.http2_stream_window_size > conf.http2_connection_window_size:
        found.append(
            "http2_stream_window_size is larger than http2_connection_window_size, which bounds what clients send on all"
            " streams of a connection; raise that, too"
        )
    return found


def _differs(declaration: Property[Any], text: str) -> bool:
    """Whether a value means something else than the default."""
    return declaration.default is None or bool(declaration.read(text) != declaration.read(declaration.default))


# -- references ------------------------------------------------------------------------------------------------------


def _resolve_references(texts: dict[str, str], prefix: str, environ: Mapping[str, str], problems: list[str]) -> None:
    """Put the values of ``{vault://env/NAME}`` and ``{vault://env/NAME/KEY}`` in, for each member of a list; other vaults
    are not built."""
    for name, text in texts.items():
        if "{vault://" not in text:
            continue
        parts = items(text) if properties()[name].kind.name.startswith("list") else [text]
        for at, part in enumerate(parts):
            if not part.startswith("{vault://"):
                continue
            try:
                parts[at] = _dereference(part, prefix, environ)
                if not parts[at] and SECRET.search(name):
                    raise ValueError("it is empty, and nothing would be secret")
            except ValueError as error:
                problems.append(f"failed to dereference '{part}': {error} for config option '{name}'")
        texts[name] = ",".join(parts)


def _dereference(text: str, prefix: str, environ: Mapping[str, str]) -> str:
    reference = parse_reference(text)
    if reference.vault != "env":
        raise ValueError("only {vault://env/NAME} is built yet")
    return environment_secret(reference, {"prefix": prefix}, environ)


# -- reload ----------------------------------------------------------------------------------------------------------


def differences(old: Conf, new: Conf) -> tuple[list[str], list[str]]:
    """What a reload changes: (names that take effect, names that need a restart)."""
    changed = [each for name, each in properties().items() if getattr(old, name) != getattr(new, name)]
    later = _waiting(old, new)
    return [each.name for each in changed if each.name not in later], [
        each.name for each in changed if each.name in later
    ]


def only_live(old: Conf, new: Conf) -> bool:
    """Whether all that differs can be put into effect in what runs (`Property.live`)."""
    same = old.vault_env_prefix == new.vault_env_prefix
    return same and all(each.live or getattr(old, name) == getattr(new, name) for name, each in properties().items())


def _waiting(old: Conf, new: Conf) -> frozenset[str]:
    """Names of properties that keep their values until a restart."""
    found = properties().items()
    return frozenset(name for name, each in found if each.needs_restart(getattr(old, name), getattr(new, name)))


def reloaded(old: Conf, new: Conf) -> Conf:
    """What is in effect after a reload: ``new``, but ``old`` where it needs a restart.

    Raises:
        ConfError: the two do not go together.
    """
    kept = _waiting(old, new)
    texts = {name: text for name, text in old.given.items() if name in kept}
    texts |= {name: text for name, text in new.given.items() if name not in kept}
    conf = Conf(texts, new.source)
    conf.references = {name: text for name, text in old.references.items() if name in kept}
    conf.references |= {name: text for name, text in new.references.items() if name not in kept}
    conf.vault_env_prefix = new.vault_env_prefix
    conf.warnings = list(new.warnings)
    return conf
