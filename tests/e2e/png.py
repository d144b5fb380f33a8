"""PNGs by hand, honest and not, and the pixels of those that the program writes: with zlib alone, so that it judges libpng too."""
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, body=b"", crc=None, length=None):
    total = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", total)


def head(width=8, height=8, depth=8, colour=2, compression=0, filtering=0, interlace=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, filtering, interlace))


END = chunk(b"IEND")


def png(width, height, value, colour=2, packed=None):
    """8 bits a channel; value(x, y, c): a byte. packed: compressed rows to stand in place of them."""
    count = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes(value(x, y, c) % 256 for x in range(width) for c in range(count)) for y in range(height))
    return SIGNATURE + head(width, height, colour=colour) + chunk(b"IDAT", zlib.compress(rows) if packed is None else packed) + END


def pixels_of(data):
    """Undoes the filters of an 8-bit PNG that is not interlaced: (channels, [row of bytes])."""
    width, height = struct.unpack(">II", data[16:24])
    channels = {0: 1, 2: 3}[data[25]]
    at, packed = 8, b""
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        packed += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    raw, stride, above, rows = zlib.decompress(packed), width * channels, bytes(width * channels), []
    for y in range(height):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a, b, c = (row[i - channels] if i >= channels else 0), above[i], (above[i - channels] if i >= channels else 0)
            near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, near)[kind]) % 256
        above = bytes(row)
        rows.append(above)
    return channels, rows
