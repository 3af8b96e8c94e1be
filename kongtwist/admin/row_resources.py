"""Lists, rows and nested paths of every entity, made from its declaration (Kong 3.9, ``kong/api/endpoints.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from ..entities import EntityError
from ..entities.schema import Row
from ..entities.size import is_heavy
from .entity_rows import EntityRows, Parent, Writes, is_uuid
from .json_resource import Branch, Call, JSONResource, Methods
from .paging import page_of, page_size, wanted_tags
from .payload import BadBody, read_body
from .replies import Reply, not_found

__all__ = ["CollectionResource", "ParentResource", "RowResource"]

READ_ONLY = 12
"""Number of the refusal to write without a database; it names the field that addressed the row."""

_VERBS = {"PUT": "create or update", "PATCH": "update", "DELETE": "remove"}


class _EntityResource(JSONResource):
    """What lists and rows share.

    Args:
        rows: the entity's rows.
    """

    def __init__(self, rows: EntityRows) -> None:
        super().__init__(rows.api)
        self.rows, self.entity = rows, rows.entity

    async def _answer(self, call: Call) -> Reply:
        storage, reads = self.api.storage, call.method in ("GET", "HEAD", "OPTIONS")
        try:
            if storage.shared and not reads:
                await storage.refresh()  # what another node has acknowledged must be found
            reply = await super()._answer(call)
            if storage.shared and reads and reply.status == 404 and await self._refreshed():
                reply = await super()._answer(call)
        except BadBody as bad:
            return bad.reply
        return reply

    async def _refreshed(self) -> bool:
        """Whether other nodes have written something that was not here yet. Reads go on without the database."""
        try:
            return await self.api.storage.refresh()
        except EntityError:
            return False

    async def _done(self, status: int, row: Row) -> Reply:
        """Answer a write once it serves."""
        await self.api.published()
        return Reply(status, self.rows.shown(row))


class CollectionResource(_EntityResource):
    """``/services``, or below a parent ``/services/{}/routes``.

    Args:
        rows: what is listed.
        parent: the row above; None at top level.
    """

    def __init__(self, rows: EntityRows, parent: Parent | None = None) -> None:
        super().__init__(rows)
        self.parent = parent

    @property
    def methods(self) -> Methods:
        return {"GET": self._list, "POST": self._create}

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {
            **self.rows.beside(self.parent),
            f"{{{self.entity.name}}}": lambda key: RowResource(self.rows, key, self.parent),
        }

    async def _list(self, call: Call) -> Reply:
        above = None
        if self.parent is not None:
            above = self.parent.row()
            if above is None:
                return self.parent.rows.absent(self.parent.key)
        return await self.rows.listed(call, self.parent, above) or await self._page(call, above)

    async def _page(self, call: Call, above: Row | None) -> Reply:
        """A page by id."""
        storage = self.api.storage
        parent = None if self.parent is None or above is None else (self.parent.field, above["id"])
        size, tags = page_size(call), wanted_tags(call) if parent is None else None
        page = storage.page(self.entity.name, size, call.query.get("offset"), parent=parent, tags=tags)

        def rest(count: int) -> Row:
            offset = page.offset if count == len(page.rows) else storage.offset(page.rows[count - 1])
            if offset is None:
                return {"next": None}
            return {"next": self._next(call, offset, parent is None), "offset": offset}

        return Reply(200, await page_of(page.rows, self.rows.shown, rest, call.long_work.slices()))

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
        above = self.parent.rows.entity.admin_name
        return f"/{above}/{quote(self.parent.key, safe='')}/{self.entity.nested_name}"

    async def _create(self, call: Call) -> Reply:
        data = await read_body(call, self.entity)
        if self.parent is not None:
            above = self.parent.row()
            if above is None:
                return self.parent.rows.absent(self.parent.key)
            data[self.parent.field] = {"id": above["id"]}
        return await self._done(201, await self.rows.insert(data))


class RowResource(_EntityResource):
    """``/services/{}``, or below a parent ``/services/{}/routes/{}``."""

    def __init__(self, rows: EntityRows, key: str, parent: Parent | None = None) -> None:
        super().__init__(rows)
        self.key, self.parent = key, parent

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}

    @property
    def branches(self) -> Mapping[str, Branch]:
        found: dict[str, Branch] = {}
        if self.parent is None:
            for name in self.entity.foreign:
                if name not in self.rows.hidden_parents:
                    found[name] = lambda field: ParentResource(self.rows, self.key, field)
            for name, (child, field) in self.rows.children().items():
                found[name] = self._children(child, field)
        return found | self.rows.below(self.key, self.parent)

    def _children(self, child: EntityRows, field: str) -> Branch:
        return lambda _: CollectionResource(child, Parent(self.rows, self.key, field))

    async def _answer(self, call: Call) -> Reply:
        try:
            return await super()._answer(call)
        except EntityError as error:
            key = self.entity.endpoint_key
            if error.code != READ_ONLY or key is None or is_uuid(self.key):
                raise
            raise EntityError.unsupported(_VERBS[call.method], self.entity.name, key) from None

    def _row(self) -> Row | None:
        return self.rows.row(self.key, self.parent)

    def _absent(self) -> Reply:
        """The row is not there, or the one above it."""
        if self.parent is not None and self.parent.row() is None:
            return self.parent.rows.absent(self.parent.key)
        return not_found() if self.parent is not None else self.rows.absent(self.key)

    async def _get(self, call: Call) -> Reply:
        row = self._row()
        if row is not None:
            return Reply(200, self.rows.shown(row))
        return self._absent() if self.parent is not None else self.rows.unread(self.key)

    async def _patch(self, call: Call) -> Reply:
        row = self._row()
        data = await read_body(call, self.entity, row)
        if row is None:
            if self.parent is not None or self.rows.missing(self.key) is not None:
                return self._absent()
            raise EntityError.not_found(self.rows.address(self.key))
        return await self._done(200, await self.rows.update(row, data))

    async def _put(self, call: Call) -> Reply:
        if not self.rows.put_creates:
            return await self._replace(call)
        data = await read_body(call, self.entity)
        if self.parent is None:
            self.rows.look_up(self.key)  # refuses a key that no row can have
            address = self.rows.address(self.key)
        else:
            above = self.parent.row()
            if above is None:
                return self._absent()
            data[self.parent.field] = {"id": above["id"]}
            present = self.rows.child(self.key, self.parent, above)
            if present is not None and not self.rows.belongs(present, self.parent, above):
                return not_found()
            address = self.rows.put_address(self.key, present, data)
        return await self._done(200, await self.rows.upsert(address, data))

    async def _replace(self, call: Call) -> Reply:
        """Change a row that is there."""
        row = self._row()
        if row is None:
            return not_found()
        return await self._done(200, await self.rows.update(row, await read_body(call, self.entity, row)))

    async def _delete(self, call: Call) -> Reply:
        row = self._row()
        if row is None:
            odd = self.parent is not None or self.rows.missing(self.key) is not None
            return self._absent() if odd else Reply(204)
        await self.rows.delete(row)
        await self.api.published()
        return Reply(204)


class ParentResource(_EntityResource):
    """``/routes/{}/service``: the row that a row's foreign key refers to.

    Args:
        child: the rows that refer.
        key: one of them, as given in the path.
        field: its foreign key.
    """

    def __init__(self, child: EntityRows, key: str, field: str) -> None:
        super().__init__(child.every[child.entity.foreign[field].reference])
        self.child, self.key, self.field = child, key, field

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}

    def _rows(self) -> tuple[Row | None, Row | None]:
        """(the child, its parent)."""
        child = self.child.look_up(self.key)
        reference = None if child is None else child.get(self.field)
        return child, None if reference is None else self.api.storage.get(self.entity.name, reference["id"])

    async def _get(self, call: Call) -> Reply:
        parent = self._rows()[1]
        return not_found() if parent is None else Reply(200, self.rows.shown(parent))

    async def _patch(self, call: Call) -> Reply:
        parent = self._rows()[1]
        if parent is None:
            return not_found()
        data = await read_body(call, self.entity, parent)
        return await self._done(200, await self.rows.update(parent, data))

    async def _put(self, call: Call) -> Reply:
        child, parent = self._rows()
        if child is None:
            return not_found()
        data = await read_body(call, self.entity)
        if parent is not None:
            return await self._done(200, await self.rows.upsert({"id": parent["id"]}, data))

        def work(writes: Writes) -> Row:
            created = self.rows.insert_in(writes, data)
            writes.update(self.child.name, child["id"], {self.field: {"id": created["id"]}})
            return created

        return await self._done(200, await self.rows.together(work, is_heavy(data)))

    async def _delete(self, call: Call) -> Reply:
        return not_found() if self._rows()[1] is None else Reply(405, {"message": "Method not allowed"})
