"""Write the reference of entities and plugins from the declarations: ``python -m kongtwist.commands.reference_pages FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.chain.plugin import PHASES, Plugin
from ..entities import Entity, registry
from ..entities.json_schema import Use, check_text, field_schema, needed, rule_text
from ..entities.json_schema_entities import configurations
from ..entities.plugin_rows import config_of
from ..entities.schema import Array, Field, Foreign, Integer, Map, Number, Record, String
from ..node.plugin_loader import load_plugins

__all__ = ["documents"]

_MADE = "<!-- Made from the declarations by `make docs`. -->\n"
_HEAD = "| field | type | default | rules | meaning |\n|---|---|---|---|---|\n"
_TTL = "| `ttl` | integer | null | 0 to 100000000 | Seconds until the row expires; 0 or null: never. |\n"


def documents() -> dict[str, str]:
    """Every page: path below the folder -> text."""
    plugins = load_plugins(["bundled"])
    entities = {name: each for name, each in registry(plugins).items() if each.stored}
    pages = {f"{name}.md": _entity(each, entities) for name, each in entities.items()}
    pages |= {f"plugins/{name}.md": _plugin(each) for name, each in plugins.items()}
    return pages | {"README.md": _contents(entities, plugins)}


def _contents(entities: Mapping[str, Entity], plugins: Mapping[str, Plugin]) -> str:
    lines = [
        "# Reference",
        _MADE,
        "Every field of what can be configured. The same declarations make the Admin API's validation, its `/schemas`, and its",
        "OpenAPI document at `/openapi.json`.",
        "\n## Entities\n",
        "| entity | path | is |\n|---|---|---|",
        *(f"| [{name}]({name}.md) | `{_path(each)}` | {_cell(each.text)} |" for name, each in entities.items()),
        "\n## Plugins\n",
        "| plugin | priority | does |\n|---|---|---|",
        *(
            f"| [{name}](plugins/{name}.md) | {each.priority} | {_cell(_purpose(each))} |"
            for name, each in sorted(plugins.items(), key=lambda item: -item[1].priority)
        ),
    ]
    return "\n".join(lines) + "\n"


def _path(entity: Entity) -> str:
    return "/upstreams/{}/targets" if entity.name == "targets" else f"/{entity.admin_name}"


def _purpose(plugin: Plugin) -> str:
    """What a plugin does: the first sentence of its module or folder, without its name."""
    module = ".".join(type(plugin).__module__.split(".")[:3])
    text = (sys.modules[module].__doc__ or "").partition("\n")[0]
    does = text.partition(": ")[2].split(". ")[0].rstrip(".")
    return f"{does[:1].upper()}{does[1:]}."


# -- pages ---------------------------------------------------------------------------------------------------------------


def _entity(entity: Entity, entities: Mapping[str, Entity]) -> str:
    parts = [f"# {entity.name}\n\n{_MADE}\n{entity.text}\n"]
    keys = f"its id or its `{entity.endpoint_key}`" if entity.endpoint_key else "its id"
    if entity.in_admin:
        parts.append(f"Path: `{_path(entity)}`. A row is addressed by {keys}.\n")
    else:
        parts.append("The Admin API has no path for its rows.\n")
    children = [each for each in entities.values() if any(to.reference == entity.name for to in each.foreign.values())]
    if children:
        links = ", ".join(f"[{each.name}]({each.name}.md)" for each in children)
        parts.append(f"Referred to by: {links}.\n")
    parts.append("## Fields\n\n" + _HEAD + "".join(_rows(entity.fields)) + (_TTL if entity.ttl else ""))
    for name, shorthand in entity.shorthands.items():
        if name not in entity.fields:
            parts.append(f"Shorthand `{name}` ({shorthand.field.kind}): {shorthand.field.text}\n")
    for name, variant in configurations(entity).items():
        if entity.name != "plugins":
            parts.append(f"## Configuration of {name}\n\n{_HEAD}{''.join(_rows({'config': variant.fields['config']}))}")
    checks = list(entity.checks)
    if not configurations(entity):
        checks += dict.fromkeys(check for variant in entity.variants.values() for check in variant.checks)
    rules = [check_text(check) for check in checks]
    if entity.cache_key:
        rules.append(f"Unique together: {', '.join(entity.cache_key)}")
    parts.append(_rules(rules) + _example(entity.example))
    return "\n".join(part for part in parts if part)


def _plugin(plugin: Plugin) -> str:
    config = config_of(plugin)
    phases = [phase for phase in PHASES if getattr(type(plugin), phase, None) is not getattr(Plugin, phase, None)]
    allowed = plugin.protocols_allowed or plugin.protocols
    facts = [
        f"Priority: {plugin.priority} (higher runs earlier).",
        f"Phases: {', '.join(phases)}.",
        f"Protocols: {', '.join(plugin.protocols)}."
        + ("" if set(allowed) == set(plugin.protocols) else f" May be chosen: {', '.join(allowed)}."),
        f"May be for one: {', '.join(plugin.scopes)}.",
    ]
    if plugin.entities:
        facts.append("Brings: " + ", ".join(f"[{each.name}](../{each.name}.md)" for each in plugin.entities) + ".")
    parts = [
        f"# {plugin.name}\n\n{_MADE}\n{_purpose(plugin)} What differs from Kong's: [plugins](../../plugins.md).\n",
        "\n".join(f"- {fact}" for fact in facts) + "\n",
        "## Configuration\n\n" + (_HEAD + "".join(_rows(config.fields)) if config.fields else "None.\n"),
    ]
    if config.shorthands:
        aliases = {name: each.field for name, each in config.shorthands.items()}
        parts.append("Deprecated, still taken:\n\n" + _HEAD + "".join(_rows(aliases)))
    texts = [check_text(check).replace("config.", "") for check in (*plugin.config_checks, *config.entity_checks)]
    rules = _rules([*texts, *map(rule_text, config.checks)])
    parts.append(rules + _example({"name": plugin.name, "config": dict(plugin.example)}))
    return "\n".join(part for part in parts if part)


def _rules(texts: Iterable[str]) -> str:
    lines = [f"- {text}." for text in texts if text]
    return "## Rules\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def _example(body: Mapping[str, Any]) -> str:
    return f"## Example\n\n```json\n{json.dumps(body, indent=2)}\n```\n" if body else ""


# -- fields ----------------------------------------------------------------------------------------------------------------


def _rows(fields: Mapping[str, Field], prefix: str = "") -> Iterator[str]:
    for name, field in fields.items():
        yield f"| `{prefix}{name}` | {_kind(field)} | {_default(field)} | {_cell(_facts(field))} | {_cell(_meaning(field))} |\n"
        if isinstance(field, Record):
            yield from _rows(field.fields, f"{prefix}{name}.")
        elif isinstance(field, Array) and isinstance(field.elements, Record):
            yield from _rows(field.elements.fields, f"{prefix}{name}[].")
        elif isinstance(field, Map) and isinstance(field.values, Record):
            yield from _rows(field.values.fields, f"{prefix}{name}[name].")


def _meaning(field: Field) -> str:
    if "deprecation" in field.attrs and not field.text:
        path = ".".join(map(str, field.attrs["deprecation"]["replaced_with"][0]["path"]))
        return f"Use {path}."
    return field.text


def _kind(field: Field) -> str:
    if isinstance(field, Array):
        return f"{field.kind} of {_kind(field.elements)}"
    if isinstance(field, Map):
        return f"map to {_kind(field.values)}"
    if isinstance(field, Foreign):
        return f"reference to [{field.reference}]({field.reference}.md)"
    return field.kind


def _default(field: Field) -> str:
    if field.auto or field.made:
        return "made"
    if isinstance(field, Record) and field.required:
        return ""
    if needed(field):
        return "**required**"
    return "null" if field.default is None else f"`{_cell(json.dumps(field.default))}`"


def _facts(field: Field) -> str:
    """The rules of a field, and of the members of a list."""
    schema = field_schema(field, Use.WRITE)
    found = ["unique"] if field.unique else []
    found += _bounds(field)
    if schema.get("type") == "null":
        found.append("null")
    for inner, of in ((getattr(field, "elements", None), "each"), (getattr(field, "keys", None), "names")):
        if inner is not None and not isinstance(inner, Record):
            found += [f"{of}: {text}" for text in _bounds(inner)]
    if isinstance(field, Array):
        for name, words in (("minItems", "at least"), ("maxItems", "at most")):
            if schema.get(name):
                found.append(f"{words} {schema[name]} members")
    if field.referenceable:
        found.append("may be a reference to a secret")
    if field.attrs.get("on_delete") == "cascade":
        found.append("goes with what it refers to")
    return "; ".join(found)


def _bounds(field: Field) -> list[str]:
    """Values, range, length and further rules of one value."""
    attrs, found = field.attrs, []
    if "one_of" in attrs:
        found.append(", ".join(f"`{each}`" for each in attrs["one_of"]))
    if "not_one_of" in attrs:
        found.append("not " + ", ".join(f"`{each}`" for each in attrs["not_one_of"]))
    if isinstance(field, Number) and "between" in attrs:
        found.append(f"{attrs['between'][0]} to {attrs['between'][1]}")
    if "gt" in attrs:
        found.append(f"greater than {attrs['gt']}")
    if isinstance(field, String):
        for name, words in (("len_eq", "exactly"), ("len_min", "at least"), ("len_max", "at most")):
            if attrs.get(name):
                found.append(f"{words} {attrs[name]} bytes")
        if "starts_with" in attrs:
            found.append(f"begins with `{attrs['starts_with']}`")
        if "match" in attrs:
            found.append(f"matches `{field_schema(field, Use.WRITE).get('pattern', attrs['match'])}`")
    if isinstance(field, Integer | Number | String):
        found += [text[:1].lower() + text[1:] for text in map(rule_text, field.checks) if text]
        if attrs.get("is_regex"):
            found.append("a regular expression")
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _write(folder: Path) -> None:
    """Write every page, and remove pages of what no longer exists."""
    pages = documents()
    for old in folder.rglob("*.md"):
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
