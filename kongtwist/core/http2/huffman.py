"""Huffman coding of header strings (RFC 7541 5.2, Appendix B).

The code is canonical: within one length codes count upwards in the order of symbols, so that the lengths alone say it. Short strings are
decoded byte by byte: what a node of the code's tree and a byte lead to is worked out when it is met the first time; there are some 65,000
such steps at most.

Longer ones, tokens mostly, are decoded by zlib. DEFLATE has canonical codes too (RFC 1951 3.2.2), of 15 bits at most, and takes bits from
the other end of each byte. The symbols with longer codes, which hardly occur in text, are those that begin with 15 ones, and nothing else
does: that is the code of the block's end. Ones are also what pads a string, so that the end comes where the string ends.
"""

from __future__ import annotations

import zlib
from typing import Any

__all__ = ["decode"]

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606050505060606"
    "0606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f0506050605060606050707"
    "0606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615"
    "1416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b18"
    "15151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
"""Bits of each symbol's code; the last symbol is EOS."""

_EOS = 256
_SHORT = 20
"""Bytes below which zlib, for which it makes little difference how many there are, takes longer."""


def _make_tree() -> list[list[int]]:
    """Nodes of the code's tree: two children each, a node's number or ``-1 - symbol``; 0 where there is none yet."""
    tree = [[0, 0]]
    code = before = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda each: (_LENGTHS[each], each)):
        length = _LENGTHS[symbol]
        code <<= length - before
        before = length
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not tree[node][bit]:
                tree.append([0, 0])
                tree[node][bit] = len(tree) - 1
            node = tree[node][bit]
        tree[node][code & 1] = -1 - symbol
        code += 1
    return tree


_TREE = _make_tree()

_Row = list[Any]
"""What each byte leads to from one node of the tree: the next row, and what was decoded; None until it is met. Last comes the node."""


def _make_row(node: int) -> _Row:
    return [*[None] * 256, node]


_START = _make_row(0)
_rows = {0: _START}
_pieces: dict[bytes, bytes] = {}
"""What steps give, each once: the fewer places in memory are looked at, the more of them are in the processor's caches."""


def _ends() -> frozenset[int]:
    """Nodes at which a string may end: behind less than 8 bits of EOS, which is all ones."""
    node, found = 0, [0]
    for _ in range(7):
        node = _TREE[node][1]
        found.append(node)
    return frozenset(found)


_ENDS = _ends()


def _step(row: _Row, byte: int) -> tuple[_Row, bytes]:
    node = row[256]
    out = bytearray()
    for shift in range(7, -1, -1):
        node = _TREE[node][byte >> shift & 1]
        if node < 0:
            if node == -1 - _EOS:
                raise ValueError("EOS in a Huffman string")
            out.append(-1 - node)
            node = 0
    onward = _rows.get(node)
    if onward is None:
        onward = _rows[node] = _make_row(node)
    piece = bytes(out)
    found = row[byte] = (onward, _pieces.setdefault(piece, piece))
    return found


def _decode_steps(data: bytes) -> bytes:
    row = _START
    out: list[bytes] = []
    add = out.append
    for byte in data:
        row, piece = row[byte] or _step(row, byte)
        add(piece)
    if row[256] not in _ENDS:
        raise ValueError("malformed padding of a Huffman string")
    return b"".join(out)


def _block_start() -> bytes:
    """The beginning of a block of DEFLATE with this code (RFC 1951 3.2.7), as far as the first symbol."""
    bits = "0" + "10" + "0000000"  # an empty block before, with the fixed code: so all of it ends with a byte
    bits += "1" + "01" + "00000" + "10000" + "1111"  # the last block; 257 symbols, 2 distances, 19 lengths
    bits += 3 * "000" + 16 * "001"  # in which lengths come: 4 bits for each but the three that repeat
    lengths = [length if length <= 15 else 0 for length in _LENGTHS[:_EOS]]
    bits += "".join([f"{length:04b}" for length in (*lengths, 15, 1, 1)])
    return bytes([int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)])


_REVERSED = bytes([int(f"{byte:08b}"[::-1], 2) for byte in range(256)])
_ready = zlib.decompressobj(-9)
_ready.decompress(_block_start())


def decode(data: bytes) -> bytes:
    """The string that ``data`` codes.

    Raises:
        ValueError: EOS in it, or padding that is longer than 7 bits or not all ones.
    """
    size = len(data)
    if size >= _SHORT:
        inflate = _ready.copy()
        # 15 ones more: an end behind the last symbol.
        out = inflate.decompress(data.translate(_REVERSED) + b"\xff\x7f", 2 * size)
        # It takes a part of the last byte where there are less than 7 bits of padding.
        if inflate.eof and (not inflate.unused_data or sum(out.translate(_LENGTHS[:_EOS])) == 8 * size - 7):
            return out
    return _decode_steps(data)
