"""Huffman coding of header strings (RFC 7541 5.2, Appendix B), decoded byte by byte.

The code is canonical: within one length codes count upwards in the order of symbols, so that the lengths alone say it. What a
state and a byte lead to is worked out when it is met the first time; there are some 65,000 such steps at most.
"""

from __future__ import annotations

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
_steps: dict[int, tuple[int, bytes]] = {}
"""``node << 8 | byte`` -> (``node << 8`` afterwards, what was decoded), where it is a code."""


def _ends() -> frozenset[int]:
    """States in which a string may end: behind less than 8 bits of EOS, which is all ones."""
    node, found = 0, [0]
    for _ in range(7):
        node = _TREE[node][1]
        found.append(node << 8)
    return frozenset(found)


_ENDS = _ends()


def _step(key: int) -> tuple[int, bytes]:
    node = key >> 8
    out = bytearray()
    for shift in range(7, -1, -1):
        node = _TREE[node][key >> shift & 1]
        if node < 0:
            if node == -1 - _EOS:
                raise ValueError("EOS in a Huffman string")
            out.append(-1 - node)
            node = 0
    found = _steps[key] = (node << 8, bytes(out))
    return found


def decode(data: bytes) -> bytes:
    """The string that ``data`` codes.

    Raises:
        ValueError: EOS in it, or padding that is longer than 7 bits or not all ones.
    """
    steps = _steps
    state = 0
    out: list[bytes] = []
    add = out.append
    for byte in data:
        try:
            state, piece = steps[state | byte]
        except KeyError:
            state, piece = _step(state | byte)
        add(piece)
    if state not in _ENDS:
        raise ValueError("malformed padding of a Huffman string")
    return b"".join(out)
