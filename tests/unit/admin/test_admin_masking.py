"""Tests of what the Admin API's logs leave out (kongtwist/admin/access/path_mask.py)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.access.path_mask import PathMask, frames_of
from kongtwist.entities import registry
from kongtwist.node.plugin_loader import load_plugins

ID = b"0dc6f45b-8f8d-40d2-a504-473544ee190b"


class PathMaskTests(SynchronousTestCase):
    """Credentials in paths."""

    def test_keys(self) -> None:
        """A key that names a credential is hidden, however its collection is spelled; ids and all else stay."""
        mask = PathMask(registry(load_plugins(["bundled"])))
        for target, shown in (
            (b"/key-auths/s3cret", b"/key-auths/***"),
            (b"/key-auths/s3cret/consumer?size=1", b"/key-auths/***/consumer?size=1"),
            (b"/consumers/bob/key-auth/s3cret", b"/consumers/bob/key-auth/***"),
            (b"/key%2Dauths/s3cret", b"/key%2Dauths/***"),
            (b"/key-auths/" + ID, b"/key-auths/" + ID),
            (b"/key-auths", b"/key-auths"),
            (b"/key-auths/", b"/key-auths/"),
            (b"/key-auths?offset=a", b"/key-auths?offset=a"),
            (b"/consumers/bob/key-auth", b"/consumers/bob/key-auth"),
            (b"/services/key-auth", b"/services/key-auth"),
            (b"/consumers/bob", b"/consumers/bob"),
            (b"", b""),
        ):
            self.assertEqual(mask(target), shown)


class FramesTests(SynchronousTestCase):
    """Exceptions without their texts."""

    def test_no_text(self) -> None:
        """Kind and place of an exception and of its cause; none of the values they quote."""
        secret = "-".join(("s3", "cret"))
        try:
            try:
                int(secret)
            except ValueError as error:
                raise KeyError(secret) from error
        except KeyError as error:
            shown = frames_of(error)
        self.assertNotIn(secret, shown)
        for word in ("builtins.KeyError", "because of builtins.ValueError", "in test_no_text", "test_admin_masking.py"):
            self.assertIn(word, shown)
