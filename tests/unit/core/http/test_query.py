"""Query strings: what an argument is called and means, and with an argument taken out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.bodies import decode_body
from kongtwist.core.http.query import join_query, parse_query, without_argument

WITHOUT = {
    b"b=1&apikey=k1&a=2&b=3&c": b"b=1&a=2&b=3&c=",
    b"apikey=k": b"",
    b"": b"",
    b"a&apikey&b": b"a=&b=",
    b"&&a=1&&apikey=x&": b"a=1",
    b"a=b=c&apikey=1": b"a=b%3Dc",
    b"=x&apikey=1&=": b"=x&=",
    b"a%20b=c+d&apikey=1": b"a+b=c+d",
    b"q=%c3%a9&apikey=1&q=\xc3\xa9": b"q=%C3%A9&q=%C3%A9",
    b"api%6Bey=k&x=1": b"x=1",
    b"a=%zz&apikey=1&b=%": b"a=%25zz&b=%25",
    b"x=*-._~!'()&apikey=1": b"x=*-._%7E%21%27%28%29",
    b"x=%2B%26%3D%23&apikey=1": b"x=%2B%26%3D%23",
    b"?a=1&apikey=2": b"a=1",
    b"a=1;b=2&apikey=3": b"a=1%3Bb%3D2",
    b"apikey=1&apikey=2&z=%00": b"z=%00",
    b"a[]=1&apikey=1&a[]=2": b"a%5B%5D=1&a%5B%5D=2",
    b"A=%41&APIKEY=1&apikey=x": b"A=A&APIKEY=1",
    b"a=/?:@&apikey=1": b"a=%2F%3F%3A%40",
    b"x=%0d%0a&apikey=1": b"x=%0D%0A",
    b'x="<>`{}|\\^&apikey=1': b"x=%22%3C%3E%60%7B%7D%7C%5C%5E",
}
"""Without ``apikey``: what Node's URLSearchParams answers (Kong 3.9 uses the same library, ada)."""


class QueryTests(SynchronousTestCase):
    def test_without_an_argument(self) -> None:
        """The others keep their order, repeated ones too."""
        for query, left in WITHOUT.items():
            self.assertEqual(without_argument(query, "apikey"), left, query)

    def test_bytes_that_are_no_text(self) -> None:
        """Stay what they are, as in ada (Node would put U+FFFD in their place)."""
        self.assertEqual(without_argument(b"a=%ff&apikey=1&b=\xfe", "apikey"), b"a=%FF&b=%FE")
        self.assertEqual(without_argument(b"a=1&%C3%A9=2", "é"), b"a=1")

    def test_forms(self) -> None:
        """Of a body likewise."""
        for query, left in WITHOUT.items():
            body = decode_body(b"application/x-www-form-urlencoded", query)
            assert body is not None
            self.assertEqual(body.without("apikey"), left)

    def test_what_is_left_means_the_same(self) -> None:
        for query in WITHOUT:
            if not query.startswith(b"?"):  # which only the one that is read for taking out takes for a mark
                before = {name: values for name, values in parse_query(query).items() if name != "apikey"}
                self.assertEqual(parse_query(without_argument(query, "apikey")), before)

    def test_arguments(self) -> None:
        """Values by name, in order; a name without a value has an empty one."""
        self.assertEqual(parse_query(b"a=1&b&a=2&&c=%20+x"), {"a": ["1", "2"], "b": [""], "c": ["  x"]})

    def test_beyond_ascii(self) -> None:
        """UTF-8 means the same raw and percent-encoded, in names and in values, also side by side."""
        for query in ("円=é", "%E5%86%86=%C3%A9"):
            self.assertEqual(parse_query(query.encode()), {"円": ["é"]})
        self.assertEqual(parse_query("k=é%C3%A9".encode()), {"k": ["éé"]})
        self.assertEqual(join_query(parse_query("円=é".encode())), b"%E5%86%86=%C3%A9")

    def test_no_utf8(self) -> None:
        """Other bytes are replaced, or kept apart for those who want to see them."""
        for query in (b"a=\xff", b"a=%FF"):
            self.assertEqual(parse_query(query), {"a": ["\ufffd"]})
            self.assertEqual(parse_query(query, "surrogateescape"), {"a": ["\udcff"]})
