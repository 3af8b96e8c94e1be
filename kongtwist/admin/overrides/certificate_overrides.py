"""Certificates are written together with their SNIs, and found by them (Kong 3.9, ``kong/api/routes/certificates.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from ...entities import EntityError
from ...entities.schema import Row
from ...entities.size import is_heavy
from ..entity_rows import EntityRows, Writes, is_uuid
from ..replies import Reply

__all__ = ["CertificateRows", "SNIRows"]


class CertificateRows(EntityRows):
    """Certificates. ``snis`` holds the names of their SNIs."""

    key_text = "Id of the certificate, or a server name it is for."

    # -- reading -------------------------------------------------------------------------------------------------------

    def look_up(self, key: str) -> Row | None:
        return super().look_up(key) if is_uuid(key) else self.by_sni(key)

    def by_sni(self, name: str) -> Row | None:
        """The certificate of an SNI's name.

        Raises:
            EntityError: no SNI could have that name.
        """
        error = self.api.registry["snis"].key_error(name)
        if error is not None:
            raise error
        sni = self.api.storage.find("snis", "name", name)
        return None if sni is None else self.api.storage.get(self.name, sni["certificate"]["id"])

    def shown(self, row: Row) -> Row:
        snis = self.api.storage.children("snis", "certificate", row["id"])
        return super().shown(row) | {"snis": sorted(sni["name"] for sni in snis)}

    def missing(self, key: str) -> Reply | None:
        return None if is_uuid(key) else Reply(404, {"message": "SNI not found"})

    def unread(self, key: str) -> Reply:
        if is_uuid(key):
            raise EntityError.not_found(self.address(key))  # as Kong, which finds these by a way of their own
        return super().unread(key)

    # -- writing -------------------------------------------------------------------------------------------------------

    async def insert(self, data: Mapping[str, Any]) -> Row:
        return await self.together(lambda writes: self.insert_in(writes, data), is_heavy(data))

    def insert_in(self, writes: Writes, data: Mapping[str, Any]) -> Row:
        names = _checked(writes, data.get("snis"), None)
        row = super().insert_in(writes, data)
        _set_snis(writes, row["id"], names or [])
        return row

    async def update(self, row: Row, data: Mapping[str, Any]) -> Row:
        if "snis" not in data:
            return await super().update(row, data)

        def work(writes: Writes) -> Row:
            names = _checked(writes, _names(data["snis"]), row["id"])
            changed = writes.update(self.name, row["id"], {**data, "snis": names})
            _set_snis(writes, row["id"], names or [])
            return changed

        return await self.together(work, is_heavy(data) or self.api.storage.is_large(self.name, row["id"]))

    async def upsert(self, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        given: str = key["id"]

        def work(writes: Writes) -> Row:
            at, snis = given, _names(data.get("snis"))
            if not is_uuid(at):  # the name of an SNI: its certificate, or a new one, which gets it beside other names
                if isinstance(snis, list) and at not in snis:
                    snis = [*snis, at]
                present = writes.find("snis", "name", at)
                at = str(uuid4()) if present is None else present["certificate"]["id"]
            names = _checked(writes, snis, at)
            row = writes.upsert(self.name, {"id": at}, {**data, "snis": names})
            _set_snis(writes, row["id"], names or [])  # without any it keeps none
            return row

        present = self.look_up(given)
        large = present is not None and self.api.storage.is_large(self.name, present["id"])
        return await self.together(work, large or is_heavy(data))

    async def delete(self, row: Row) -> None:
        def work(writes: Writes) -> Row:
            for sni in writes.children("snis", "certificate", row["id"]):
                writes.delete("snis", sni["id"])
            writes.delete(self.name, row["id"])
            return row

        await self.together(work, self.api.storage.is_large(self.name, row["id"]))


class SNIRows(EntityRows):
    """SNIs. Kong has no ``/snis/{}/certificate``."""

    hidden_parents = ("certificate",)


def _names(snis: Any) -> Any:
    """What stands in ``snis``; one name is a list of it."""
    return [snis] if isinstance(snis, str) else snis


def _checked(writes: Writes, names: Any, certificate: str | None) -> Any:
    """The names given for a certificate (its id; None for a new one). The schema refuses what is no list of texts.

    Raises:
        EntityError: one is there twice, or is another certificate's.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return names
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise EntityError.schema_violation({"snis": f"{name} is duplicated"})
        seen.add(name)
    for name in sorted(names):
        taken = writes.find("snis", "name", name)
        if taken is not None and taken["certificate"]["id"] != certificate:
            holder = taken["certificate"]["id"]
            raise EntityError.schema_violation(
                {"snis": f"{name} already associated with existing certificate '{holder}'"}
            )
    return names


def _set_snis(writes: Writes, certificate: str, names: list[str]) -> None:
    """Give a certificate exactly these SNIs."""
    present = {sni["name"]: sni for sni in writes.children("snis", "certificate", certificate)}
    wanted = set(names)
    for name, sni in present.items():
        if name not in wanted:
            writes.delete("snis", sni["id"])
    for name in names:
        if name not in present:
            writes.insert("snis", {"name": name, "certificate": {"id": certificate}})
