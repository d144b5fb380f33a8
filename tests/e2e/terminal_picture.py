#!/usr/bin/env python3
"""Makes server/terminal.png, the README's picture: what the program sends to a terminal of 24-bit colours, drawn cell by cell with a console font.

Usage: terminal_picture.py FONT.psf.gz OUT.png (Debian's console-setup-linux has fonts; Lat15-Terminus16.psf.gz is of 8x16 pixels). DENOISED: the program.
"""
import gzip
import os
import re
import struct
import sys

import png
from harness import FAULTS, PROGRAM, ROOT, Daemon, scratch
from screen import Screen

COLUMNS, INK, GROUND = 140, (204, 204, 204), (16, 16, 20)
MODEL = os.path.join(ROOT, "models", "fashion-mnist")


class Font:
    """A PC screen font, version 1 or 2; characters by Unicode."""

    def __init__(self, path):
        with gzip.open(path) as stream:
            data = stream.read()
        if data[:2] == b"\x36\x04":
            self.height, self.width, count, first = data[3], 8, 512 if data[2] & 1 else 256, 4
            table, end, more = data[first + count * self.height:], b"\xff\xff", 2
        else:
            first, flags, count, size, self.height, self.width = struct.unpack("<6I", data[8:32])
            table, end, more = data[first + count * size:], b"\xff", 1
        self.glyphs, self.bits = {}, data[first:]
        if more == 2:
            values = struct.unpack(f"<{len(table) // 2}H", table[:len(table) // 2 * 2])
            index = 0
            for value in values:
                if value == 0xFFFF:
                    index += 1
                else:
                    self.glyphs.setdefault(chr(value), index)
        else:
            for index, names in enumerate(table.split(end)[:count]):
                for name in names.decode("utf8", "ignore"):
                    self.glyphs.setdefault(name, index)

    def draw(self, rows, x, y, character, ink, ground):
        for j in range(self.height):
            if character == "\u2580":
                line = 0xFF if j < self.height // 2 else 0
            else:
                line = self.bits[self.glyphs.get(character, 0) * self.height + j] if character != " " else 0
            for i in range(self.width):
                rows[y + j][x + i] = ink if line >> 7 - i & 1 else ground


class Grid:
    """Cells of (character, ink, ground), and a cursor."""

    def __init__(self):
        self.rows, self.x, self.y, self.ink, self.ground = [], 0, 0, INK, GROUND

    def put(self, character):
        while len(self.rows) <= self.y:
            self.rows.append([(" ", INK, GROUND)] * COLUMNS)
        if self.x < COLUMNS:
            self.rows[self.y][self.x] = (character, self.ink, self.ground)
        self.x += 1

    def write(self, text):
        text = re.sub(r"\x1b_[^\x1b]*\x1b\\", "", text)  # a question that half-block terminals ignore
        for token in re.finditer(r"\x1b\[([0-9;]*)([A-Za-z])|(.|\n)", text):
            numbers = [int(n) for n in (token[1] or "0").split(";")]
            if token[2] == "m":
                if numbers[0] == 0:
                    self.ink, self.ground = INK, GROUND
                elif numbers[0] == 38:
                    self.ink = tuple(numbers[2:])
                else:
                    self.ground = tuple(numbers[2:])
            elif token[2] == "A":
                self.y -= numbers[0]
            elif token[3] == "\n":
                self.y += 1
            elif token[3] == "\r":
                self.x = 0
            elif token[3]:
                self.put(token[3])

    def png(self, font):
        rows = [[GROUND] * ((COLUMNS + 2) * font.width) for _ in range((len(self.rows) + 1) * font.height)]
        for y, row in enumerate(self.rows):
            for x, cell in enumerate(row):
                font.draw(rows, (x + 1) * font.width, y * font.height + font.height // 2, *cell)
        return png.png(len(rows[0]), len(rows), lambda x, y, c: rows[y][x][c])


def main(font, out):
    grid, folder = Grid(), scratch("picture")
    os.chdir(folder)
    words = ["generate", "--class", "Sneaker,Bag,Dress,Sandal", "--columns", "4", "--seed", "42", "-o", "four.png"]
    grid.write("$ denoised " + " ".join(words) + "\n\r")
    grid.write(Screen([PROGRAM, *words, "--model", MODEL], columns=COLUMNS, rows=40, COLORTERM="truecolor").end()[0].decode())
    with Daemon(model=MODEL, program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow300"}) as daemon:
        words = ["submit", "--class", "Coat", "-n", "4", "--steps", "60", "--seed", "7", "--wait"]
        grid.write("\n\r$ denoised " + " ".join(words) + "\n\r")
        watcher = Screen([PROGRAM, *words, "--url", f"http://127.0.0.1:{daemon.port}"], columns=COLUMNS, rows=40, COLORTERM="truecolor")
        bar = re.compile(r"\x1b\[0m\r\n\rdenoising \[#{11,}\.+\][^\r\n]*")  # half way, below a preview: what stood there at that moment
        watcher.read(until=lambda text: bar.search(text.decode(errors="ignore")))
        shown = watcher.shown.decode(errors="ignore")
        shown = shown[:bar.search(shown).end()]
        watcher.process.terminate()
        watcher.end()
        grid.write(shown)
    with open(out, "wb") as stream:
        stream.write(grid.png(Font(font)))


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
