"""An entity: its fields, and what writing one means (order of work as Kong 3.9's ``kong/db/dao``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from .checks import AllOrNone, EntityCheck, run_checks
from .errors import EntityError, ErrorTree
from .lua_print import lua_text
from .schema import Field, Foreign, Record, Row, field_errors, fill

__all__ = ["Config", "Entity", "Shorthand", "Subschema", "Transform"]

UPDATING = "when updating, "

Transform = Callable[[Row, Collection[str]], Row]
"""The last change to a row before it is stored: gets the complete row and the names of the fields that this write gives with a
value, and gives the row. What gives another result when it is done twice (a hash) looks at given fields only: a PATCH of
another field, or a declarative file with ``_transform: false``, must leave the stored value as it is."""


class Shorthand:
    """A member that sets other fields.

    Args:
        field: its own rules.
        sets: from its value to the fields it sets.
        shown: from a row to its value where answers show it too (deprecated aliases); None: it is not shown.
    """

    def __init__(self, field: Field, sets: Callable[[Any], Row], shown: Callable[[Row], Any] | None = None) -> None:
        self.field, self.sets, self.shown = field, sets, shown


class Subschema:
    """What a field's value adds to an entity: other rules for some fields, a record's fields, more checks."""

    def __init__(self, fields: Mapping[str, Field], checks: Sequence[EntityCheck] = ()) -> None:
        self.fields, self.checks = dict(fields), tuple(checks)


class Entity:
    """A kind of row.

    Args:
        name: plural, as in the Admin API's paths.
        fields: by name, in order.
        endpoint_key: the field that addresses a row beside its id.
        checks: rules over several fields.
        shorthands: members that set other fields, in order.
        completed: what a new row says beside what was given for it; see `insert`.
        subschema_key: the field whose value chooses a subschema; ``subschema``: finds it, raising ValueError with the
            error message for that field.
        cache_key: fields that must be unique together; None parts count.
        found_by: fields, beside unique ones, by which requests look for rows.
        admin_name: collection path when it is not ``name``; ``nested_name``: the same below a parent.
        ttl: rows may expire (``ttl`` in the body, seconds).
        transform: last change to a row before it is stored; see `Transform`.
        bound: a field whose stored value ``transform`` makes of it and of a reference, and that reference: it does not change
            without the field.
        variants: the subschemas there are, by the value that chooses them.
        text: what a row is.
        example: what a client may send to create one, for the documentation.
        stored: False for entities that are views of others (tags).
        plugin: the plugin that brings it.
        exported: whether ``config db_export`` writes its rows; not those that live shortly, such as sessions.
        in_admin: whether the Admin API has paths for its rows.
        changed_together: fields of which a change (PATCH) gives all or none, because one says how another is stored.
    """

    def __init__(
        self,
        name: str,
        fields: Mapping[str, Field],
        *,
        endpoint_key: str | None = None,
        checks: Sequence[EntityCheck] = (),
        shorthands: Mapping[str, Shorthand] | None = None,
        completed: Callable[[Row], Row] | None = None,
        subschema_key: str | None = None,
        subschema: Callable[[Any], Subschema] | None = None,
        cache_key: Sequence[str] = (),
        found_by: Sequence[str] = (),
        admin_name: str | None = None,
        nested_name: str | None = None,
        ttl: bool = False,
        transform: Transform | None = None,
        bound: tuple[str, str] | None = None,
        variants: Mapping[str, Subschema] | None = None,
        text: str = "",
        example: Mapping[str, Any] | None = None,
        stored: bool = True,
        plugin: str | None = None,
        exported: bool = True,
        in_admin: bool = True,
        changed_together: Sequence[Sequence[str]] = (),
    ) -> None:
        self.name, self.fields, self.endpoint_key = name, dict(fields), endpoint_key
        self.checks, self.shorthands, self.completed = tuple(checks), dict(shorthands or {}), completed
        self.subschema_key, self.subschema = subschema_key, subschema
        self.variants, self.text, self.example = dict(variants or {}), text, dict(example or {})
        self.cache_key, self.found_by = tuple(cache_key), tuple(found_by)
        self.admin_name = admin_name or name
        self.nested_name = nested_name or self.admin_name
        self.ttl, self.transform, self.stored, self.plugin = ttl, transform, stored, plugin
        self.exported, self.in_admin, self.changed_together = exported, in_admin, changed_together
        self.bound = bound
        self.foreign = {name: field for name, field in self.fields.items() if isinstance(field, Foreign)}
        self.unique = tuple(name for name, field in self.fields.items() if field.unique)

    # -- writing -----------------------------------------------------------------------------------------------------

    def insert(
        self, data: Mapping[str, Any], *, now: float, new_id: Callable[[], str], transformed: bool = False
    ) -> Row:
        """A complete row from what a client sent.

        Args:
            data: the body.
            now: epoch seconds.
            new_id: makes a UUID.
            transformed: whether values are given as they are stored (``_transform: false`` of a declarative file).

        Raises:
            EntityError: schema violation.
        """
        given, ttl = self._split_ttl(data)
        given = self._expand(given)
        try:
            row = self._whole(given if self.completed is None else self.completed(given), now, new_id)
        except EntityError:
            if self.completed is None:
                raise
            row = self._whole(given, now, new_id)  # where more is wrong, what was not given is named too
        if ttl:
            row["expires_at"] = self._begun("created_at", now) + ttl
        return self._transformed(row, {} if transformed else given)

    def _whole(self, given: Row, now: float, new_id: Callable[[], str]) -> Row:
        """What was given with defaults and what is made, if it is right."""
        row = self._filled(given)
        self._auto(row, now, new_id)
        self._validate(row)
        return row

    def upsert(self, data: Mapping[str, Any], stored: Row | None, *, now: float, new_id: Callable[[], str]) -> Row:
        """A complete row in place of ``stored`` (PUT): what is not given has its default; the id stays."""
        if stored is None:
            return self.insert(data, now=now, new_id=new_id)
        kept = {"id": stored["id"]}
        if "created_at" in stored and "created_at" not in data:
            kept["created_at"] = stored["created_at"]
        return self.insert({**data, **kept}, now=now, new_id=new_id)

    def update(self, stored: Row, patch: Mapping[str, Any], *, now: float) -> Row:
        """``stored`` with the members of ``patch`` (PATCH): records merged, lists and maps replaced, null clears.

        Raises:
            EntityError: schema violation of the result.
        """
        given, ttl = self._split_ttl({name: value for name, value in patch.items() if not self._kept(name, value)})
        given = self._expand(given, stored)
        base = {name: value for name, value in stored.items() if name in self.fields}
        merged = _merge(self.fields_of(base | given), base, given)
        if self.bound is not None and self.bound[0] not in given:
            field, reference = self.bound
            if reference in given and given[reference] != stored.get(reference):
                message = f"all or none of these fields must be set: '{field}', '{reference}.id'"
                raise EntityError.schema_violation({"@entity": [message]})
        row = self._filled(merged)
        if "updated_at" in self.fields and "updated_at" not in given:
            row["updated_at"] = _stamp(self.fields["updated_at"], now)
        self._validate(row, UPDATING, given)
        if ttl:
            row["expires_at"] = self._begun("updated_at", now) + ttl
        elif ttl is None and "expires_at" in stored:
            row["expires_at"] = stored["expires_at"]
        return self._transformed(row, given)

    def _kept(self, name: str, value: Any) -> bool:
        """Whether a change leaves a field as it is: ids and times cannot be cleared."""
        field = self.fields.get(name)
        return (
            value is None
            and field is not None
            and field.auto
            and not field.attrs.keys().isdisjoint(("uuid", "timestamp"))
        )

    def key_error(self, value: str) -> EntityError | None:
        """What is wrong with an endpoint key in a path."""
        assert self.endpoint_key is not None
        error = self.fields[self.endpoint_key].error(value)
        return None if error is None else EntityError.invalid_unique(self.endpoint_key, error)

    def shown(self, row: Row, now: float | None = None) -> Row:
        """A row as answers show it: deprecated aliases beside what they stand for, ``ttl`` instead of the expiry."""
        shown = {name: value for name, value in row.items() if name != "expires_at"}
        if self.ttl:
            until = row.get("expires_at")
            shown["ttl"] = None if until is None or now is None else max(0, int(until - now))
        for name, shorthand in self.shorthands.items():
            if shorthand.shown is not None:
                shown[name] = shorthand.shown(row)
        config = self._config_of(row)
        if config is not None and config.shorthands and isinstance(row.get("config"), dict):
            shown["config"] = row["config"] | {
                name: each.shown(row["config"]) for name, each in config.shorthands.items() if each.shown is not None
            }
        if config is not None and config.shown is not None and isinstance(row.get("config"), dict):
            shown["config"] = config.shown(shown["config"])
        return shown

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _split_ttl(self, data: Mapping[str, Any]) -> tuple[Row, int | None]:
        given = dict(data)
        if not self.ttl or "ttl" not in given:
            return given, None
        ttl = given.pop("ttl")
        if ttl is None:
            return given, 0
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 <= ttl <= 100_000_000 or ttl != int(ttl):
            raise EntityError.invalid_options({"ttl": "must be an integer between 0 and 100000000"})
        return given, int(ttl)

    def _begun(self, stamp: str, now: float) -> float:
        """When a time to live begins: now, with the precision of the row's own time stamp (Kong 3.9, ``get_ttl_value``)."""
        field = self.fields.get(stamp)
        return now if field is None or not field.auto else _stamp(field, now)

    def _transformed(self, row: Row, given: Row) -> Row:
        if self.transform is None:
            return row
        return self.transform(row, frozenset(name for name, value in given.items() if value is not None))

    def _expand(self, data: Row, stored: Row | None = None) -> Row:
        """Shorthands replaced by what they set."""
        errors: dict[str, ErrorTree] = {}
        data = _expanded(self.shorthands, data, errors)
        config = self._config_of((stored or {}) | data)
        if not errors and config is not None and config.shorthands and isinstance(data.get("config"), dict):
            # Kong names the members of a configuration that are shorthands as if they stood at the top.
            data = data | {"config": _expanded(config.shorthands, data["config"], errors)}
        if errors:
            raise EntityError.schema_violation(errors)
        return data

    def _config_of(self, row: Row) -> Config | None:
        if self.subschema is None or self.subschema_key is None:
            return None
        try:
            field = self.subschema(row.get(self.subschema_key)).fields.get("config")
        except ValueError:
            return None
        return field if isinstance(field, Config) else None

    def fields_of(self, row: Row) -> dict[str, Field]:
        """The fields that hold for a row. An unknown subschema leaves the entity's own."""
        if self.subschema is None or self.subschema_key is None:
            return self.fields
        try:
            chosen = self.subschema(self._chooser(row))
        except ValueError:
            return self.fields
        return self.fields | chosen.fields

    def _chooser(self, row: Row) -> Any:
        key = self.subschema_key
        assert key is not None
        value = row.get(key)
        return self.fields[key].default if value is None and key not in row else value

    def _filled(self, data: Row) -> Row:
        return fill(self.fields_of(data), data)

    def _auto(self, row: Row, now: float, new_id: Callable[[], str]) -> None:
        for name, field in self.fields.items():
            if not field.auto or row.get(name) is not None:
                continue
            if field.attrs.get("uuid"):
                row[name] = new_id()
            elif field.attrs.get("timestamp"):
                row[name] = _stamp(field, now)
            else:
                row[name] = new_id().replace("-", "")

    def _validate(self, row: Row, words: str = "", given: Row | None = None) -> None:
        errors: dict[str, ErrorTree] = {}
        checks = self.checks
        fields: Mapping[str, Field] = self.fields
        if self.subschema is not None and self.subschema_key is not None:
            key = self.subschema_key
            given = row.get(key)
            own = self.fields[key].error(given)
            if given is None:  # Kong looks no further then
                raise EntityError.schema_violation({key: own})
            if str(own).startswith("expected a") and not isinstance(given, str):
                errors = field_errors(self.fields, row)
            else:
                try:
                    chosen = self.subschema(given)
                except ValueError as unknown:
                    raise EntityError.schema_violation({key: str(unknown)}) from None
                fields = self.fields | chosen.fields
                errors = field_errors(fields, row)
                checks = checks + chosen.checks
        else:
            errors = field_errors(fields, row)
        run_checks(checks, row, errors, fields, words)
        for names in self.changed_together if given is not None else ():
            run_checks((AllOrNone(*names),), given or {}, errors, fields)
        if errors:
            raise EntityError.schema_violation(errors)

    # -- documentation ---------------------------------------------------------------------------------------------------

    def sample(self, *, now: float, new_id: Callable[[], str]) -> Row:
        """A row as it is shown when it was made from the entity's example; references are new ids."""
        given, ttl = self._split_ttl(self.example)
        row = self._filled(self._expand(given))
        self._auto(row, now, new_id)
        for name in self.foreign:
            row[name] = None if row[name] is None else {"id": new_id()}
        if ttl:
            row["expires_at"] = now + ttl
        return self.shown(row, now)

    def describe(self) -> Row:
        """The answer of ``/schemas/{name}``."""
        found: Row = {
            "fields": [{name: field.describe()} for name, field in self.fields.items()],
            "entity_checks": [check.describe() for check in self.checks if check.described],
        }
        return found


class Config(Record):
    """A plugin's configuration: a record that may have deprecated aliases.

    Args:
        fields: by name, in order.
        shorthands: members that set other fields.
        shown: makes of a configuration what answers show of it, where records inside have aliases.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        shorthands: Mapping[str, Shorthand] | None = None,
        shown: Callable[[Row], Row] | None = None,
        **attrs: Any,
    ) -> None:
        super().__init__(fields, **({"text": "Its configuration."} | attrs))
        self.shorthands = dict(shorthands or {})
        self.shown = shown


def _expanded(shorthands: Mapping[str, Shorthand], data: Row, errors: dict[str, ErrorTree]) -> Row:
    found = dict(data)
    for name, shorthand in shorthands.items():
        if name not in found:
            continue
        value = found.pop(name)
        if value is None and shorthand.shown is not None:
            continue
        error = shorthand.field.error(value) if value is not None else None
        if error is None and shorthand.shown is not None:
            error = _contradiction(found, name, value, shorthand)
        if error is not None:
            errors[name] = error
            continue
        for target, each in shorthand.sets(value).items():
            if shorthand.shown is None:
                found[target] = each
            elif isinstance(found.get(target) or {}, dict):  # what is wrong in itself is said to be so later
                inner = found.get(target) or {}
                found[target] = inner | {key: new for key, new in each.items() if inner.get(key) is None}
    return found


def _contradiction(data: Row, name: str, value: Any, shorthand: Shorthand) -> str | None:
    """What is wrong with a deprecated alias beside the field it stands for: both must say the same."""
    for target, each in shorthand.sets(value).items():
        inner = data.get(target)
        for key, wanted in each.items():
            given = inner.get(key) if isinstance(inner, dict) else None
            if given in (None, False):  # the real field stands, as in Kong
                continue
            if given != wanted or isinstance(given, bool) != isinstance(wanted, bool):
                return (
                    "both deprecated and new field are used but their values mismatch: "
                    f"{name} = {lua_text(wanted)} vs {target}.{key} = {lua_text(given)}"
                )
    return None


def _merge(fields: Mapping[str, Field], stored: Row, patch: Row) -> Row:
    merged = dict(stored)
    for name, value in patch.items():
        field = fields.get(name)
        if isinstance(field, Record) and isinstance(value, dict) and isinstance(stored.get(name), dict):
            merged[name] = _merge(field.fields, stored[name], value)
        else:
            merged[name] = value
    return merged


def _stamp(field: Field, now: float) -> int | float:
    return int(now) if field.kind == "integer" else round(now, 3)
