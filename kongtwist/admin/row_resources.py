"""Lists, rows and nested paths of every entity, made from its declaration (Kong 3.9, ``kong/api/endpoints.lua``)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..entities import Entity, EntityError
from ..entities.schema import Row
from ..entities.size import is_heavy
from ..entities.typedefs import tag as tag_error
from .json_resource import Branch, Call, JSONResource, Reply, not_found, page_of
from .payload import BadBody, read_body

__all__ = ["CollectionResource", "RowResource", "children_of"]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)

READ_ONLY = 12
"""Number of the refusal to write without a database; it names the field that addressed the row."""

_VERBS = {"PUT": "create or update", "PATCH": "update", "DELETE": "remove"}

Methods = Mapping[str, Callable[[Call], Awaitable[Reply]]]


def children_of(site: Any, entity: Entity) -> dict[str, tuple[Entity, str]]:
    """Entities that refer to ``entity``: path segment -> (child, its foreign key)."""
    return {
        child.nested_name: (child, field)
        for child in site.registry.values()
        for field, foreign in child.foreign.items()
        if foreign.reference == entity.name and child.stored
    }


class _EntityResource(JSONResource):
    """What lists and rows share."""

    def __init__(self, site: Any, entity: Entity) -> None:
        super().__init__(site)
        self.entity = entity

    async def _answer(self, call: Call) -> Reply:
        shared, reads = self.site.storage.shared, call.method in ("GET", "HEAD", "OPTIONS")
        try:
            if shared and not reads:
                await self.site.storage.refresh()  # what another node has acknowledged must be found
            reply = await super()._answer(call)
            if shared and reads and reply.status == 404 and await self._refreshed():
                reply = await super()._answer(call)
        except BadBody as bad:
            return bad.reply
        return reply

    async def _refreshed(self) -> bool:
        """Whether other nodes have written something that was not here yet. Reads go on without the database."""
        try:
            found: bool = await self.site.storage.refresh()
        except EntityError:
            return False
        return found

    def absent(self, entity: Entity, key: str) -> Reply:
        """The answer where there is no row of a key."""
        missing: Reply | None = self.site.special.missing(entity, key)
        return missing or not_found()

    def shown(self, row: Row) -> Row:
        shown: Row = self.site.special.shown(self.entity, row)
        return shown

    async def done(self, status: int, row: Row) -> Reply:
        """Answer a write once it serves."""
        await self.site.published()
        return Reply(status, self.shown(row))

    def look_up(self, entity: Entity, key: str) -> Row | None:
        """A row by id or endpoint key.

        Raises:
            EntityError: a key that the field would not take.
        """
        if _UUID.match(key):
            found: Row | None = self.site.storage.get(entity.name, key.lower())
            return found
        if entity.endpoint_key is None:
            if entity.name == "certificates":
                by_sni: Row | None = self.site.special.certificate_of_sni(key)
                return by_sni
            raise EntityError.invalid_primary_key({"id": "expected a valid UUID"})
        error = entity.key_error(key)
        if error is not None:
            raise error
        row: Row | None = self.site.storage.find(entity.name, entity.endpoint_key, key)
        return row


class CollectionResource(_EntityResource):
    """``/services``, or below a parent ``/services/{}/routes``.

    Args:
        site: the Admin API.
        entity: what is listed.
        parent: the parent's entity, its key as given and the foreign key; None at top level.
    """

    def __init__(self, site: Any, entity: Entity, parent: tuple[Entity, str, str] | None = None) -> None:
        super().__init__(site, entity)
        self.parent = parent

    @property
    def methods(self) -> Methods:
        return {"GET": self._list, "POST": self._create}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {f"{{{self.entity.name}}}": lambda key: RowResource(self.site, self.entity, key, self.parent)}

    def _parent_row(self) -> Row | None:
        assert self.parent is not None
        return self.look_up(self.parent[0], self.parent[1])

    def _without_parent(self) -> Reply:
        assert self.parent is not None
        return self.absent(self.parent[0], self.parent[1])

    async def _list(self, call: Call) -> Reply:
        parent = None
        if self.parent is not None:
            row = self._parent_row()
            if row is None:
                return self._without_parent()
            parent = (self.parent[2], row["id"])
        special = self.site.special.listed(self.entity, call, parent)
        if special is not None:
            return Reply(200, special)
        size, tags = page_size(call), wanted_tags(call) if parent is None else None
        page = self.site.storage.page(self.entity.name, size, call.query.get("offset"), parent=parent, tags=tags)

        def rest(count: int) -> Row:
            offset = page.offset if count == len(page.rows) else self.site.storage.offset(page.rows[count - 1])
            if offset is None:
                return {"next": None}
            return {"next": self._next(call, offset, parent is None), "offset": offset}

        return Reply(200, await page_of(page.rows, self.shown, rest, call.turns.slices()))

    def _next(self, call: Call, offset: str, top: bool) -> str:
        text = f"{self._path()}?offset={quote(offset, safe='')}"
        if top and call.query.get("tags"):
            text += f"&tags={quote(call.query['tags'], safe='')}"
        if top and "size" in call.query:
            text += f"&size={page_size(call)}"
        return text

    def _path(self) -> str:
        if self.parent is None:
            return f"/{self.entity.admin_name}"
        return f"/{self.parent[0].admin_name}/{quote(self.parent[1], safe='')}/{self.entity.nested_name}"

    async def _create(self, call: Call) -> Reply:
        data = await read_body(call, self.entity)
        if self.parent is not None:
            row = self._parent_row()
            if row is None:
                return self._without_parent()
            data[self.parent[2]] = {"id": row["id"]}
        created = await self.site.special.insert(self.entity, data)
        return await self.done(201, created)


class RowResource(_EntityResource):
    """``/services/{}``, or below a parent ``/services/{}/routes/{}``."""

    def __init__(self, site: Any, entity: Entity, key: str, parent: tuple[Entity, str, str] | None = None) -> None:
        super().__init__(site, entity)
        self.key, self.parent = key, parent

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}

    @property
    def branches(self) -> Mapping[str, Branch]:
        found: dict[str, Branch] = {}
        if self.parent is None:
            for name in self.entity.foreign:
                if (self.entity.name, name) != ("snis", "certificate"):
                    found[name] = lambda field: ParentResource(self.site, self.entity, self.key, field)
            for name, (child, field) in children_of(self.site, self.entity).items():
                found[name] = self._children(child, field)
        found.update(self.site.special.below(self.entity, self.key, self.parent))
        return found

    def _children(self, child: Entity, field: str) -> Branch:
        return lambda _: CollectionResource(self.site, child, (self.entity, self.key, field))

    async def _answer(self, call: Call) -> Reply:
        try:
            return await super()._answer(call)
        except EntityError as error:
            key = self.entity.endpoint_key
            if error.code != READ_ONLY or key is None or _UUID.match(self.key):
                raise
            raise EntityError.unsupported(_VERBS[call.method], self.entity.name, key) from None

    def row(self) -> Row | None:
        """The row, if it is there and belongs to the parent."""
        if self.parent is None:
            return self.look_up(self.entity, self.key)
        parent = self.look_up(self.parent[0], self.parent[1])
        if parent is None:
            return None
        row = self._child(parent)
        if row is None or (row.get(self.parent[2]) or {}).get("id") != parent["id"]:
            return None
        return row

    def _absent(self) -> Reply:
        """The row is not there, or what it would be below of."""
        if self.parent is not None and self.look_up(self.parent[0], self.parent[1]) is None:
            return self.absent(self.parent[0], self.parent[1])
        return not_found() if self.parent is not None else self.absent(self.entity, self.key)

    def _child(self, parent: Row) -> Row | None:
        """A child by key; where keys are unique within the parent only, among its children."""
        key = self.entity.endpoint_key
        assert self.parent is not None
        if key is None or _UUID.match(self.key) or self.entity.fields[key].unique:
            return self.look_up(self.entity, self.key)
        wanted = self.site.special.key_of(self.entity, self.key)
        children = self.site.storage.children(self.entity.name, self.parent[2], parent["id"])
        return next((row for row in children if row[key] == wanted), None)

    def _address(self) -> dict[str, str]:
        """The field and value that the path's key stands for."""
        if _UUID.match(self.key) or self.entity.endpoint_key is None:
            return {"id": self.key.lower()}  # certificates by SNI: see special.py
        return {self.entity.endpoint_key: self.key}

    async def _get(self, call: Call) -> Reply:
        row = self.row()
        if row is not None:
            return Reply(200, self.shown(row))
        if self.parent is None and self.entity.name == "certificates" and _UUID.match(self.key):
            raise EntityError.not_found(self._address())  # as Kong, which finds these by a way of their own
        return self._absent()

    async def _patch(self, call: Call) -> Reply:
        row = self.row()
        data = await read_body(call, self.entity, row)
        if row is None:
            if self.parent is not None or self.site.special.missing(self.entity, self.key) is not None:
                return self._absent()
            raise EntityError.not_found(self._address())
        return await self.done(200, await self.site.special.update(self.entity, row, data))

    async def _put(self, call: Call) -> Reply:
        if self.entity.name == "targets":
            return await self._put_target(call)
        data = await read_body(call, self.entity)
        if self.parent is not None:
            parent = self.look_up(self.parent[0], self.parent[1])
            if parent is None:
                return self._absent()
            data[self.parent[2]] = {"id": parent["id"]}
            present = self._child(parent)
            if present is not None and (present.get(self.parent[2]) or {}).get("id") != parent["id"]:
                return not_found()
        else:
            self.look_up(self.entity, self.key)
        return await self.done(200, await self.site.special.upsert(self.entity, self._address(), data))

    async def _put_target(self, call: Call) -> Reply:
        """Targets are only changed so, never made (Kong 3.9, ``kong/api/routes/upstreams.lua``)."""
        row = self.row()
        if row is None:
            return not_found()
        return await self.done(
            200, await self.site.special.update(self.entity, row, await read_body(call, self.entity, row))
        )

    async def _delete(self, call: Call) -> Reply:
        row = self.row()
        if row is None:
            odd = self.parent is not None or self.site.special.missing(self.entity, self.key) is not None
            return self._absent() if odd else Reply(204)
        await self.site.special.delete(self.entity, row)
        await self.site.published()
        return Reply(204)


class ParentResource(_EntityResource):
    """``/routes/{}/service``: the row that a row's foreign key refers to."""

    def __init__(self, site: Any, child: Entity, key: str, field: str) -> None:
        super().__init__(site, site.registry[child.foreign[field].reference])
        self.child, self.key, self.field = child, key, field

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}

    def _rows(self) -> tuple[Row | None, Row | None]:
        """(the child, its parent)."""
        child = self.look_up(self.child, self.key)
        reference = None if child is None else child.get(self.field)
        return child, None if reference is None else self.site.storage.get(self.entity.name, reference["id"])

    async def _get(self, call: Call) -> Reply:
        parent = self._rows()[1]
        return not_found() if parent is None else Reply(200, self.shown(parent))

    async def _patch(self, call: Call) -> Reply:
        parent = self._rows()[1]
        if parent is None:
            return not_found()
        data = await read_body(call, self.entity, parent)
        return await self.done(200, await self.site.special.update(self.entity, parent, data))

    async def _put(self, call: Call) -> Reply:
        child, parent = self._rows()
        if child is None:
            return not_found()
        data = await read_body(call, self.entity)
        if parent is not None:
            return await self.done(200, await self.site.special.upsert(self.entity, {"id": parent["id"]}, data))

        def work(several: Any) -> Row:
            created: Row = self.site.special.insert_in(several, self.entity, data)
            several.update(self.child.name, child["id"], {self.field: {"id": created["id"]}})
            return created

        return await self.done(200, await self.site.storage.together(work, is_heavy(data)))

    async def _delete(self, call: Call) -> Reply:
        return not_found() if self._rows()[1] is None else Reply(405, {"message": "Method not allowed"})


def page_size(call: Call) -> int:
    """``size``: rows of a page, 1 to 1000, 100 by default.

    Raises:
        EntityError: not a number, or out of range.
    """
    text = call.query.get("size")
    if text is None:
        return 100
    try:
        size = float(text)
    except ValueError:
        raise EntityError.invalid_size("size must be a number") from None
    if size != size // 1 or not 1 <= size <= 1000:
        raise EntityError.invalid_size("size must be an integer between 1 and 1000")
    return int(size)


def wanted_tags(call: Call) -> tuple[str, list[str]] | None:
    """``tags=a,b`` (all of them) or ``tags=a/b`` (any of them).

    Raises:
        EntityError: mixed, empty, too many or malformed.
    """
    text = call.query.get("tags", call.query.get("tags[]"))
    if text is None:
        return None
    if not text:
        raise EntityError.invalid_options({"tags": "cannot be null"})
    how, sign = ("or", "/") if "/" in text else ("and", ",")
    tags = text.split(sign)
    if any(tag_error(tag) for tag in tags):
        raise EntityError.invalid_options({"tags": "invalid filter syntax"})
    if len(tags) > 5:
        raise EntityError.invalid_options({"tags": "cannot query more than 5 tags"})
    return how, tags
