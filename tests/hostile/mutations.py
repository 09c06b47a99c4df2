"""Files that are almost right: changed bytes, lengths and numbers, and changes that
keep a file's own checksums."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

Random = np.random.Generator
NUMBERS = (0, 1, 2, 3, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
VALUES = (
    *(None, True, 0, -1, 1e308, float("nan"), 2**70),
    *("", "x", "é" * 999, [], {}, [[]]),
)


def flipped(data: bytearray, random: Random) -> None:
    """A few bytes are others."""
    for _ in range(int(random.integers(1, 9))):
        data[random.integers(len(data))] ^= int(random.integers(1, 256))


def cut_off(data: bytearray, random: Random) -> None:
    del data[random.integers(len(data)) :]


def left_out(data: bytearray, random: Random) -> None:
    """A block is missing."""
    begin = int(random.integers(len(data)))
    del data[begin : begin + int(random.integers(1, 2 + len(data) // 4))]


def doubled(data: bytearray, random: Random) -> None:
    """A block comes twice."""
    begin = int(random.integers(len(data)))
    block = data[begin : begin + int(random.integers(1, 2 + len(data) // 4))]
    data[begin:begin] = block


def blank(data: bytearray, random: Random) -> None:
    """A block is zeros, or ones."""
    begin = int(random.integers(len(data)))
    end = min(begin + int(random.integers(1, 2 + len(data) // 4)), len(data))
    data[begin:end] = bytes([int(random.choice([0, 255]))]) * (end - begin)


def renumbered(data: bytearray, random: Random) -> None:
    """A number of 2 or 4 bytes is another one: sizes, rates, time stamps."""
    size = int(random.choice([2, 4]))
    if len(data) <= size:
        return flipped(data, random)
    # Headers are at the beginning, indices often at the end.
    span = len(data) - size
    begin = int(span * random.random() ** 4)
    begin = begin if random.random() < 0.7 else span - begin
    number = int(random.choice(NUMBERS)) % 256**size
    order = "little" if random.random() < 0.5 else "big"
    data[begin : begin + size] = number.to_bytes(size, order)
    return None


def exchanged(data: bytearray, random: Random) -> None:
    """Two blocks change places."""
    size = int(random.integers(1, 2 + len(data) // 4))
    a, b = (int(random.integers(max(len(data) - size, 1))) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def nothing_left(data: bytearray, random: Random) -> None:
    """Empty, one byte, or noise."""
    data[:] = random.bytes(int(random.choice([0, 1, 100, 5000])))


BYTES: tuple[Callable, ...] = (
    *(flipped, flipped, flipped, cut_off, cut_off, left_out, doubled, blank),
    *(renumbered, renumbered, renumbered, exchanged, nothing_left),
)


def of_bytes(data: bytes, random: Random) -> bytes:
    """One or two of the changes above."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 3))):
        if changed:
            BYTES[random.integers(len(BYTES))](changed, random)
    return bytes(changed)


# --- changes that keep checksums ---


def of_png(data: bytes, random: Random) -> bytes:
    """A chunk's content is changed, and its CRC is right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    which = 0 if random.random() < 0.5 else int(random.integers(len(chunks)))
    name, content = chunks[which]
    changed = bytearray(content or b"\0")
    (renumbered if random.random() < 0.5 else flipped)(changed, random)
    chunks[which] = name, bytes(changed)
    if random.random() < 0.2:
        chunks.append(chunks[random.integers(len(chunks))])
    whole = data[:8]
    for name, content in chunks:
        crc = zlib.crc32(name + content)
        whole += len(content).to_bytes(4, "big") + name + content
        whole += crc.to_bytes(4, "big")
    return whole


def of_json(data: bytes, random: Random) -> bytes:
    """A value is of another kind, a name is missing, or there is one more."""
    tree = json.loads(data)
    places = []

    def visit(node) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in list(keys):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(tree)
    for _ in range(int(random.integers(1, 4))):
        node, key = places[random.integers(len(places))]
        kind = random.random()
        value = VALUES[random.integers(len(VALUES))]
        if kind < 0.2 and isinstance(node, dict):
            node.pop(key, None)
        elif kind < 0.3 and isinstance(node, dict):
            node["stranger"] = value
        elif isinstance(node, dict) or key < len(node):
            node[key] = value
    return json.dumps(tree).encode()


def of_npz(data: bytes, random: Random) -> bytes:
    """An array is missing, of another shape, kind or content, or its header lies; the
    archive's checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = sorted(members)[random.integers(len(members))]
    kind = random.random()
    if kind < 0.15:
        del members[name]
    elif kind < 0.5:
        changed = bytearray(members[name])
        (flipped if random.random() < 0.5 else cut_off)(changed, random)
        members[name] = bytes(changed)
    elif kind < 0.7:  # the header alone
        changed = bytearray(members[name])
        digits = [i for i in range(min(128, len(changed))) if chr(changed[i]).isdigit()]
        if digits:
            changed[digits[random.integers(len(digits))]] = ord("9")
        members[name] = bytes(changed)
    else:
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        others = [array[:0], array[..., None], np.asarray(3), array[::-1]]
        if array.dtype.kind == "f":
            others += [array * np.nan, array * 1e30, array.astype(complex)]
        else:
            others += [array.astype(str), np.array([{}], object)]
        buffer = io.BytesIO()
        np.save(buffer, others[random.integers(len(others))], allow_pickle=True)
        members[name] = buffer.getvalue()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return whole.getvalue()


def of_csv(data: bytes, random: Random) -> bytes:
    """Fields, quotes and line ends that do not belong there."""
    text = data.decode()
    pieces = (
        *(",", '"', '""', "\n", "\r\n", "\0", "\ufeff", " ", "../", "~", "/"),
        "x" * 5000,
        *("image,audio,out\n", ",,,,\n", "-", "é", "\u202e", "%00", "'", "\\", "|"),
    )
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(text) + 1))
        text = text[:at] + pieces[random.integers(len(pieces))] + text[at:]
    return text.encode("utf-16" if random.random() < 0.1 else "utf-8")


def of_flags(data: bytes, random: Random) -> bytes:
    """Lines name=value: of one or two the value is another line's, a strange one, or
    the name is misspelt or a group's."""
    lines = data.decode().splitlines()
    for _ in range(int(random.integers(1, 3))):
        at = int(random.integers(len(lines)))
        name, _, value = lines[at].partition("=")
        kind = random.random()
        if kind < 0.6:
            value = WORDS[random.integers(len(WORDS))]
        elif kind < 0.9:
            value = lines[random.integers(len(lines))].partition("=")[2]
        else:
            name = str(random.choice([name[:-1], f"{name}.x", name.split(".")[0], ""]))
        lines[at] = f"{name}={value}"
    return "\n".join(lines).encode()


WORDS = (
    *("", "0", "-1", "1", "2", "3", "7", "1.5", "-0.0", "1e-30", "1e30", "nan", "inf"),
    *("4294967296", "99999999999999999999", "true", "no", "None", "x", "é", "()"),
    *("(1,)", "(0, -1)", "('a', 'b')", "[3]", "{}", "(", "'", "1_0", "0x10", " 3 "),
)
STRUCTURED = {
    ".flags": of_flags,
    ".png": of_png,
    ".json": of_json,
    ".npz": of_npz,
    ".csv": of_csv,
}


def mutated(data: bytes, suffix: str, random: Random) -> bytes:
    """Another file of that suffix, changed in bytes or, where it is known how, in what
    it says."""
    change = STRUCTURED.get(suffix)
    if change and random.random() < 0.6:
        try:
            return change(data, random)
        except Exception:  # it was changed before beyond recognition
            pass
    return of_bytes(data, random)
