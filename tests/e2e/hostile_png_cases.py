"""Pictures that no client should send, for a model of 8x8 RGB pixels, each with the one answer that it must get.

A case is (name, the JSON value of init_image or the bytes of a file, answer). The answer is FINE: the job succeeds; (422, text) or
(400, text): refused before a job exists; BAD and a text: the job ends as failed with bad-input-image. The text is part of the detail."""
import base64
import struct
import zlib

from png import END, SIGNATURE, chunk, head

FINE = ("fine", "")
NO_PNG = (422, "the bytes are none")
NO_BASE64 = (422, "padded and without line ends or a data: prefix")
SIZE = (422, "8 pixels wide and 8 high")
CLEAR = (422, "without transparency")


def bad(text):
    return ("bad-input-image", text)


def base(data):
    return base64.b64encode(data).decode()


def rows(row_bytes=24, count=8, filtering=0):
    return b"".join(bytes([filtering]) + bytes((y * 29 + x * 7) % 256 for x in range(row_bytes)) for y in range(count))


def data(raw=None, **options):
    return chunk(b"IDAT", zlib.compress(rows() if raw is None else raw), **options)


GOOD = SIGNATURE + head() + data() + END


def picture(*chunks):
    return SIGNATURE + b"".join(chunks) + END


def around(*chunks):
    """The good picture with chunks between its header and its data."""
    return picture(head(), *chunks, data())


def grey(depth):
    return picture(head(depth=depth, colour=0), data(rows(8 * depth // 8)))


def palette(depth, colours, indices=None, before=b"", behind=b""):
    raw = rows(8 * depth // 8) if indices is None else indices
    return picture(head(depth=depth, colour=3), before, chunk(b"PLTE", bytes(i % 256 for i in range(3 * colours))), behind, data(raw))


def adam7(depth, channels):
    raw = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        wide, high = len(range(x0, 8, dx)), len(range(y0, 8, dy))
        raw += rows((wide * channels * depth + 7) // 8, high)
    return picture(head(depth=depth, colour=2 if channels == 3 else 0, interlace=1), data(raw))


def damaged(at, to=None):
    out = bytearray(GOOD)
    out[at] = out[at] ^ 0xFF if to is None else to
    return bytes(out)


STREAM = zlib.compress(rows())
ZEROS = zlib.compress(bytes(32 << 20), 9)  # 32 MB in 32 KB
TEXT_BOMB = b"k\0\0" + zlib.compress(bytes(60 << 20), 9)
IDAT_AT = len(SIGNATURE) + 25

FORM = [
    ("no text", "", NO_BASE64), ("a blank", " ", NO_BASE64), ("a number", 7, NO_BASE64), ("an array", [base(GOOD)], NO_BASE64),
    ("an object", {"png": base(GOOD)}, NO_BASE64), ("true", True, NO_BASE64),
    ("a data: URI", "data:image/png;base64," + base(GOOD), NO_BASE64), ("a URL", "https://example.org/a.png", NO_BASE64),
    ("a path", "/etc/passwd", NO_BASE64), ("blanks in it", base(GOOD)[:8] + " " + base(GOOD)[8:], NO_BASE64),
    ("line ends in it", base64.encodebytes(GOOD).decode(), NO_BASE64), ("a line end behind it", base(GOOD) + "\n", NO_BASE64),
    ("one = too few", base(GOOD + b"\0").rstrip("=") + "=" * (len(base(GOOD + b"\0")) - len(base(GOOD + b"\0").rstrip("=")) - 1), NO_BASE64),
    ("one = too many", base(GOOD) + "=", NO_BASE64), ("= in the middle", base(GOOD)[:8] + "=" + base(GOOD)[9:], NO_BASE64),
    ("the alphabet of URLs", "iVBORw0KGgo_" + base(GOOD)[12:], NO_BASE64), ("bits behind the last byte", "iVBORw0KGgp=", NO_BASE64),
    ("letters that are none", base(GOOD)[:20] + "\u00e9" + base(GOOD)[21:], NO_BASE64), ("hexadecimal", GOOD.hex() + "0", NO_BASE64),
]

NOT_PNG = [
    ("JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(40), NO_PNG), ("GIF", b"GIF89a\x08\0\x08\0" + bytes(40), NO_PNG),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', NO_PNG), ("HTML", b"<html><script>alert(1)</script></html>", NO_PNG),
    ("BMP", b"BM" + bytes(60), NO_PNG), ("WebP", b"RIFF\x24\0\0\0WEBPVP8 " + bytes(40), NO_PNG), ("TIFF", b"II*\0" + bytes(60), NO_PNG),
    ("PDF", b"%PDF-1.7\n" + bytes(60), NO_PNG), ("zip", b"PK\x03\x04" + bytes(60), NO_PNG), ("MNG", b"\x8aMNG\r\n\x1a\n" + GOOD[8:], NO_PNG),
    ("one byte", b"\x89", NO_PNG), ("a signature alone", SIGNATURE, NO_PNG), ("a header cut short", GOOD[:32], NO_PNG),
    ("line ends changed on the way", GOOD.replace(b"\r\n", b"\n", 1), NO_PNG), ("its high bit lost", b"\x09" + GOOD[1:], NO_PNG),
    ("two signatures", SIGNATURE + GOOD, NO_PNG), ("a byte before it", b"\0" + GOOD, NO_PNG), ("a mark before it", b"\xef\xbb\xbf" + GOOD, NO_PNG),
    ("data first", picture(data(), head()), NO_PNG), ("text first", picture(chunk(b"tEXt", b"k\0v"), head(), data()), NO_PNG),
    ("the end first", SIGNATURE + END + GOOD[8:], NO_PNG), ("Apple's chunk first", picture(chunk(b"CgBI", bytes(4)), head(), data()), NO_PNG),
    ("ihdr", GOOD.replace(b"IHDR", b"ihdr"), NO_PNG), ("a header of 12 bytes", SIGNATURE + chunk(b"IHDR", bytes(12)) + GOOD[33:], NO_PNG),
    ("a header of 14 bytes", SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBBB", 8, 8, 8, 2, 0, 0, 0, 0)) + GOOD[33:], NO_PNG),
    ("a header of no bytes", SIGNATURE + chunk(b"IHDR") + GOOD[8:], NO_PNG),
]

HEADERS = [
    ("no width", dict(width=0), SIZE), ("no height", dict(height=0), SIZE), ("one pixel", dict(width=1, height=1), SIZE),
    ("65535 x 65535", dict(width=65535, height=65535), SIZE), ("2^31 wide", dict(width=2 ** 31), SIZE),
    ("2^32-1 high", dict(height=2 ** 32 - 1), SIZE), ("a column more", dict(width=9), SIZE), ("a row less", dict(height=7), SIZE),
    ("4096 x 4096", dict(width=4096, height=4096), SIZE), ("a million wide", dict(width=1000000), SIZE), ("-8 wide", dict(width=2 ** 32 - 8), SIZE),
    ("depth 0", dict(depth=0), NO_PNG), ("depth 3", dict(depth=3), NO_PNG), ("depth 7", dict(depth=7), NO_PNG), ("depth 32", dict(depth=32), NO_PNG),
    ("depth 255", dict(depth=255), NO_PNG), ("colour type 1", dict(colour=1), NO_PNG), ("colour type 5", dict(colour=5), NO_PNG),
    ("colour type 7", dict(colour=7), NO_PNG), ("colour type 255", dict(colour=255), NO_PNG), ("RGB of 4 bits", dict(depth=4), NO_PNG),
    ("RGB of 1 bit", dict(depth=1), NO_PNG), ("a palette of 16 bits", dict(depth=16, colour=3), NO_PNG),
    ("grey and alpha of 4 bits", dict(depth=4, colour=4), NO_PNG), ("RGBA of 2 bits", dict(depth=2, colour=6), NO_PNG),
    ("compression 1", dict(compression=1), NO_PNG), ("filter method 1", dict(filtering=1), NO_PNG), ("filter method 64", dict(filtering=64), NO_PNG),
    ("interlace 2", dict(interlace=2), NO_PNG), ("interlace 255", dict(interlace=255), NO_PNG), ("grey and alpha", dict(colour=4), CLEAR),
    ("RGBA", dict(colour=6), CLEAR), ("RGBA of 16 bits", dict(depth=16, colour=6), CLEAR),
]
REFUSED = FORM + NOT_PNG + [(name, picture(head(**fields), data()), answer) for name, fields, answer in HEADERS]

ORDER = [
    ("the header's checksum", damaged(29), bad("CRC error")), ("the data's checksum", picture(head(), data(crc=0)), bad("CRC error")),
    ("the end's checksum", GOOD[:-1] + b"\0", bad("CRC error")), ("a flipped bit of data", damaged(IDAT_AT + 20), bad("PNG: IDAT")),
    ("the checksum of a chunk that is not needed", around(chunk(b"tEXt", b"k\0v", crc=1)), bad("CRC error")),
    ("no data", picture(head()), bad("PNG: ")), ("nothing behind the header", GOOD[:33], bad("PNG: ")), ("no end", GOOD[:-12], bad("PNG: ")),
    ("two headers", around(head()), bad("PNG: ")), ("a second header of another size", around(head(width=4096, height=4096)), bad("PNG: ")),
    ("data of no bytes", picture(head(), chunk(b"IDAT")), bad("PNG: ")), ("a byte behind the end", GOOD + b"\0", bad("bytes behind the picture")),
    ("another file behind the end", GOOD + b"PK\x05\x06" + bytes(18), bad("bytes behind the picture")),
    ("a picture behind the end", GOOD + GOOD, bad("bytes behind the picture")),
    ("a chunk between the data", picture(head(), chunk(b"IDAT", STREAM[:40]), chunk(b"tEXt", b"k\0v"), chunk(b"IDAT", STREAM[40:])), bad("PNG: ")),
    ("the end between the data", SIGNATURE + head() + chunk(b"IDAT", STREAM[:40]) + END + chunk(b"IDAT", STREAM[40:]) + END, bad("PNG: ")),
    ("a chunk that is needed and unknown", around(chunk(b"ABCD", b"x")), bad("PNG: ")),
    ("a name that is no word", around(chunk(b"te\0t", b"x")), bad("PNG: ")),
    ("a name with a digit", around(chunk(b"tE1t", b"x")), bad("PNG: ")),
    ("a chunk of 2^31 bytes", around(chunk(b"tEXt", b"x", length=2 ** 31)), bad("PNG: ")),
    ("a chunk of 2^32-1 bytes", around(chunk(b"tEXt", b"x", length=2 ** 32 - 1)), bad("PNG: ")),
    ("a chunk of 2^31-1 bytes", around(chunk(b"tEXt", b"x", length=2 ** 31 - 1)), bad("PNG: ")),
    ("data of 2^31-1 bytes", picture(head(), data(length=2 ** 31 - 1)), bad("PNG: ")),
    ("an end with bytes", GOOD[:-12] + chunk(b"IEND", b"x"), bad("PNG: ")),
    ("an end in the middle of a chunk", GOOD[:IDAT_AT + 10], bad("PNG: ")),
    ("a wide header, narrow data", picture(head(), data(rows(12))), bad("PNG: ")),
]

PACKED = [
    ("no zlib", picture(head(), chunk(b"IDAT", bytes(60))), bad("PNG: ")),
    ("gzip", picture(head(), chunk(b"IDAT", b"\x1f\x8b\x08" + STREAM)), bad("PNG: ")),
    ("raw deflate", picture(head(), chunk(b"IDAT", STREAM[2:-4])), bad("PNG: ")),
    ("compression method 9", picture(head(), chunk(b"IDAT", b"\x79\x9a" + STREAM[2:])), bad("PNG: ")),
    ("a window of 64 KB", picture(head(), chunk(b"IDAT", b"\x88\x1c" + STREAM[2:])), bad("PNG: ")),
    ("a dictionary", picture(head(), chunk(b"IDAT", b"\x78\xbb" + bytes(4) + STREAM[2:])), bad("PNG: ")),
    ("zlib's own checksum", picture(head(), chunk(b"IDAT", STREAM[:-1] + bytes([STREAM[-1] ^ 1]))), bad("PNG: ")),
    ("cut in the stream", picture(head(), chunk(b"IDAT", STREAM[:-20])), bad("PNG: ")),
    ("cut before the checksum", picture(head(), chunk(b"IDAT", STREAM[:-4])), bad("PNG: ")),
    ("a row too few", picture(head(), data(rows(count=7))), bad("PNG: ")), ("a byte too few", picture(head(), data(rows()[:-1])), bad("PNG: ")),
    ("a row too many", picture(head(), data(rows(count=9))), bad("PNG: ")), ("a byte too many", picture(head(), data(rows() + b"\0")), bad("PNG: ")),
    ("32 MB of zeros", picture(head(), chunk(b"IDAT", ZEROS)), bad("PNG: ")),
    ("a stream behind the stream", picture(head(), chunk(b"IDAT", STREAM + STREAM)), bad("PNG: ")),
    ("filter 5", picture(head(), data(rows(filtering=5))), bad("PNG: ")), ("filter 255", picture(head(), data(rows(filtering=255))), bad("PNG: ")),
    ("a stored block that lies of its length", picture(head(), chunk(b"IDAT", b"\x78\x01\x01\xff\xff\x00\x01" + rows())), bad("PNG: ")),
    ("a reserved block", picture(head(), chunk(b"IDAT", b"\x78\x01\x07" + bytes(20))), bad("PNG: ")),
    ("empty blocks alone", picture(head(), data(b"")), bad("PNG: ")),
]

COLOURS = [
    ("no palette", picture(head(colour=3), data(rows(8))), bad("PNG: ")), ("an empty palette", palette(8, 0), bad("PNG: ")),
    ("a palette of 4 bytes", picture(head(colour=3), chunk(b"PLTE", bytes(4)), data(rows(8))), bad("PNG: ")),
    ("257 colours", palette(8, 257), bad("PNG: ")), ("more colours than 1 bit has", palette(1, 3, bytes(16)), FINE),
    ("two palettes", palette(8, 256, behind=chunk(b"PLTE", bytes(768))), bad("PNG: ")),
    ("a palette in grey", picture(head(colour=0), chunk(b"PLTE", bytes(6)), data(rows(8))), bad("PNG: ")),
    ("the palette behind the data", picture(head(colour=3), data(rows(8)), chunk(b"PLTE", bytes(768))), bad("PNG: ")),
    ("a colour beyond the palette", palette(8, 4, rows(8)), bad("a pixel's colour is not in the palette")),
    ("a colour beyond 3 of 2 bits", palette(2, 3, b"".join(b"\0\xff\xff" for _ in range(8))), bad("a pixel's colour is not in the palette")),
    ("transparency of a palette", palette(8, 256, behind=chunk(b"tRNS", b"\0")), bad("transparency is not supported")),
    ("transparency of RGB", around(chunk(b"tRNS", bytes(6))), bad("transparency is not supported")),
    ("transparency of grey", picture(head(colour=0), chunk(b"tRNS", bytes(2)), data(rows(8))), bad("transparency is not supported")),
    ("transparency of 257 colours", palette(8, 256, behind=chunk(b"tRNS", bytes(257))), bad("PNG: tRNS")),
    ("transparency before its palette", palette(8, 256, before=chunk(b"tRNS", bytes(2))), bad("PNG: tRNS")),
]

ACCEPTED = [
    ("as it should be", GOOD, FINE), ("grey of 1 bit", grey(1), FINE), ("grey of 2 bits", grey(2), FINE), ("grey of 4 bits", grey(4), FINE),
    ("grey of 8 bits", grey(8), FINE), ("grey of 16 bits", grey(16), FINE), ("RGB of 16 bits", picture(head(depth=16), data(rows(48))), FINE),
    ("a palette of 1 bit", palette(1, 2), FINE), ("of 2 bits", palette(2, 4), FINE), ("of 4 bits", palette(4, 16), FINE),
    ("of 8 bits", palette(8, 256), FINE),
    ("interlaced", adam7(8, 3), FINE), ("interlaced grey of 1 bit", adam7(1, 1), FINE), ("interlaced RGB of 16 bits", adam7(16, 3), FINE),
    ("a palette suggested to RGB", around(chunk(b"PLTE", bytes(6))), FINE),
    ("every filter", picture(head(), data(b"".join(bytes([y % 5]) + bytes(24) for y in range(8)))), FINE),
    ("data in 100,000 pieces", picture(head(), *[chunk(b"IDAT", STREAM[i:i + 1]) for i in range(len(STREAM))], *[chunk(b"IDAT")] * 60000), FINE),
    ("60,000 chunks that are not needed", around(*[chunk(b"tEXt", b"k\0v")] * 60000), FINE),
    ("text that unpacks to 60 MB", around(chunk(b"zTXt", TEXT_BOMB)), FINE),
    ("international text that does", around(chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT_BOMB[3:])), FINE),
    ("a profile that does", around(chunk(b"iCCP", TEXT_BOMB)), FINE),
    ("a chunk of 900 KB", around(chunk(b"tEXt", b"k\0" + bytes(900000))), FINE),
    ("a chunk of 1 MB", around(chunk(b"tEXt", b"k\0" + bytes(1 << 20))), bad("too large")),
    ("an animation", around(chunk(b"acTL", struct.pack(">II", 2, 0)),
                                                                                            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))), FINE),
    ("gamma of 0", around(chunk(b"gAMA", bytes(4))), FINE), ("chromaticities of nonsense", around(chunk(b"cHRM", b"\xff" * 32)), FINE),
    ("two of what may be there once", around(chunk(b"gAMA", bytes(4)), chunk(b"gAMA", bytes(4))), FINE),
    ("a time of month 13", around(chunk(b"tIME", b"\x07\xe5\x0d" + bytes(4))), FINE),
    ("a background out of range", around(chunk(b"bKGD", b"\xff" * 6)), FINE),
    ("text with escapes of a terminal", around(chunk(b"tEXt", b"k\0\x1b[2J\x1b]0;x\x07")), FINE),
]

MASKS = [  # with an honest init_image
    ("grey", grey(8), FINE), ("black and white", grey(1), FINE), ("RGB", GOOD, FINE),
    ("of another size", picture(head(width=4, height=4, colour=0), data(rows(4, 4))), SIZE),
    ("one column more", picture(head(width=9, colour=0), data(rows(9))), SIZE), ("with transparency", picture(head(colour=4), data(rows(16))), CLEAR),
    ("no PNG", b"GIF89a" + bytes(60), NO_PNG), ("no base64", "not base64", NO_BASE64), ("a number", 1, NO_BASE64),
    ("cut short", grey(8)[:-20], bad("PNG: ")),
    ("a damaged checksum", picture(head(colour=0), data(rows(8), crc=5)), bad("CRC error")),
    ("32 MB of zeros", picture(head(colour=0), chunk(b"IDAT", ZEROS)), bad("PNG: ")),
    ("a byte behind it", grey(8) + b"\0", bad("bytes behind the picture")),
    ("a colour beyond its palette", palette(8, 4, rows(8)), bad("not in the palette")),
]
DECODED = ORDER + PACKED + COLOURS + ACCEPTED
