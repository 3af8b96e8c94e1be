"""Path templates of google.api.http (kongtwist/plugins/grpc_gateway/path_templates.py)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.grpc_gateway.path_templates import BadTemplate, PathTemplate, TemplateIndex

MATCHES: list[tuple[str, bytes, list[tuple[str, str]] | None]] = [
    ("/v1/messages/{name}", b"/v1/messages/a", [("name", "a")]),
    ("/v1/messages/{name}", b"/v1/messages/", None),
    ("/v1/messages/{name}", b"/v1/messages/a/b", None),
    ("/v1/messages/{name}", b"/v1/messages/a%2Fb%20c", [("name", "a/b c")]),
    ("/v1/messages/{name}", b"/v1/messages/%C3%A9", [("name", "é")]),
    ("/v1/{name=messages/*}", b"/v1/messages/a", [("name", "messages/a")]),
    ("/v1/{name=messages/*}", b"/v1/others/a", None),
    ("/v1/{name=shelves/*/books/*}", b"/v1/shelves/1/books/b%20c", [("name", "shelves/1/books/b c")]),
    ("/v1/{book.name=books/*}", b"/v1/books/1", [("book.name", "books/1")]),
    ("/v1/{name=**}", b"/v1/a/b%2Fc%20d", [("name", "a/b%2Fc d")]),
    ("/v1/{name=files/**}", b"/v1/files/a/b", [("name", "files/a/b")]),
    ("/v1/{name=files/**}", b"/v1/files", [("name", "files")]),
    ("/v1/**", b"/v1/what/ever", []),
    ("/v1/*/x", b"/v1/a/x", []),
    ("/v1/*/x", b"/v1/a/b/x", None),
    ("/v1/{a}/{b}", b"/v1/1/2", [("a", "1"), ("b", "2")]),
    ("/v1/{name=operations/*}:cancel", b"/v1/operations/7:cancel", [("name", "operations/7")]),
    ("/v1/{name=operations/*}:cancel", b"/v1/operations/7", None),
    ("/v1/{name}", b"/v1/a:b", [("name", "a:b")]),
    ("/v1/a(b)", b"/v1/a%28b%29", []),
    ("/v1.0/x", b"/v1x0/x", None),
    ("/v1/messages/", b"/v1/messages/", []),
    ("/v1/messages/", b"/v1/messages", None),
    ("/v1/{name}/", b"/v1/a/", [("name", "a")]),
    ("/", b"/", []),
]


class PathTemplateTests(SynchronousTestCase):
    def test_matches(self) -> None:
        for text, path, expected in MATCHES:
            found = PathTemplate(text).match(path)
            named = None if found is None else [(".".join(names), value) for names, value in found]
            self.assertEqual(named, expected, f"{text} {path!r}")

    def test_wrong_templates(self) -> None:
        """Each is refused with the template and what is wrong with it."""
        for text in (
            "", "v1", "/v1//", "/**/", "/a//b", "/{a", "/{a={b}}", "/{}", "/{1a}", "/{a.}", "/{a}/{a}", "/a*", "/**/b", "/a:", "/a:b/c",
            "/a}", "/{a=**}/b", "/a?b={b}", "/a#b", "/a b", "/a:b?c",
        ):  # fmt: skip
            with self.assertRaises(BadTemplate) as caught:
                PathTemplate(text)
            self.assertIn(repr(text), str(caught.exception))


class TemplateIndexTests(SynchronousTestCase):
    def test_more_particular_first(self) -> None:
        """Whatever the order of declaration: a verb, a literal, one segment, the rest."""
        texts = ["/v1/{rest=**}", "/v1/{one}", "/v1/exact", "/v1/{one}:verb", "/v1/{again}"]
        index = TemplateIndex([("GET", PathTemplate(text), text) for text in texts])
        for path, expected in (
            (b"/v1/exact", "/v1/exact"),
            (b"/v1/other", "/v1/{one}"),
            (b"/v1/other:verb", "/v1/{one}:verb"),
            (b"/v1/a/b", "/v1/{rest=**}"),
        ):
            found = index.find(b"GET", path)
            assert found is not None
            self.assertEqual(found[0], expected)

    def test_methods(self) -> None:
        """A custom method is as good as any; ``*`` is for those that nothing else is for."""
        index = TemplateIndex([("LINK", PathTemplate("/x"), 1), ("*", PathTemplate("/x"), 2)])
        self.assertEqual([(index.find(method, b"/x") or (None,))[0] for method in (b"LINK", b"GET")], [1, 2])
        self.assertIsNone(index.find(b"LINK", b"/y"))
        self.assertTrue(index.knows(b"PUT"))
        self.assertFalse(TemplateIndex([("GET", PathTemplate("/x"), 1)]).knows(b"PUT"))
