"""Plays a terminal: runs a program on a pseudo-terminal, answers what it asks or stays silent, and reads back what was drawn.

Standard library only. What a terminal shows is decoded here from the bytes, so that a picture is compared pixel by pixel.
"""
import base64
import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import png
from harness import PATIENCE, check

# Names that would tell a program about the terminal in which the tests run.
NAMES = ("COLORTERM", "KITTY_WINDOW_ID", "LC_ALL", "LC_CTYPE", "LC_TERMINAL", "NO_COLOR", "STY", "TERM_PROGRAM", "TMUX", "DENOISED_URL",
         "DENOISED_API_KEY")
UTF8 = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "DENOISED_TERMINAL_WAIT": "600"}
QUESTION = b"\x1b[c"  # the last that a program asks
KITTY = b"\x1b_Gi=31;OK\x1b\\\x1b[6;16;8t\x1b[?62;22c"
SIXEL = b"\x1b[6;16;8t\x1b[?62;4;22c"
PLAIN = b"\x1b[?62;22c"


def clean(environment):
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    return {name: value for name, value in {**kept, **UTF8, **environment}.items() if value is not None}


class Screen:
    """A program on a terminal of so many columns and rows. answers: what the terminal says when it is asked (None: nothing); `typed` lies in
    its input before the program starts. stdout, stderr: a file instead of the terminal. controlling: the terminal is the session's."""

    def __init__(self, command, answers=PLAIN, typed=b"", columns=80, rows=24, pixels=(0, 0), stdout=None, stderr=None, controlling=True,
                 **environment):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, *pixels))
        self.answers, self.shown, self.asked = answers, b"", False
        if typed:
            os.write(self.master, typed)

        def begin():
            if controlling:
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(command, stdin=slave, stdout=stdout or slave, stderr=stderr or slave, start_new_session=True,
                                        preexec_fn=begin, env=clean(environment), close_fds=True, pass_fds=(slave,))
        self.slave = slave

    def read(self, until=None):
        """Reads until the program ends, or until what was shown satisfies until(bytes)."""
        end = time.monotonic() + PATIENCE
        while until is None or not until(self.shown):
            ended = self.process.poll() is not None  # asked before the read: what it wrote is there
            if select.select([self.master], [], [], 0.0 if ended else 0.05)[0]:
                try:
                    self.shown += os.read(self.master, 65536)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
            elif ended:
                break
            if self.answers is not None and not self.asked and QUESTION in self.shown:
                self.asked = True
                os.write(self.master, self.answers)
            check(time.monotonic() < end, f"no end within {PATIENCE:.0f} s; shown: {self.shown[-300:]!r}")
        return self.shown

    def end(self):
        """What was shown when it has ended, and its status."""
        self.read()
        status = self.process.wait(PATIENCE)
        self.close()
        return self.shown, status

    def left(self):
        """What waits in the terminal's input, a partial line included."""
        mode = termios.tcgetattr(self.slave)
        mode[3] &= ~termios.ICANON
        termios.tcsetattr(self.slave, termios.TCSANOW, mode)
        return os.read(self.slave, 4096) if select.select([self.slave], [], [], 0)[0] else b""

    def close(self):
        for fd in (self.master, self.slave):
            if fd is not None:
                os.close(fd)
        self.master = self.slave = None


def rows_of(data):
    """A PNG's rows of (r, g, b)."""
    channels, rows = png.pixels_of(data)
    return [[tuple(row[i:i + 3]) if channels == 3 else (row[i],) * 3 for i in range(0, len(row), channels)] for row in rows]


def scaled(rows, factor):
    return [[p for p in row for _ in range(factor)] for row in rows for _ in range(factor)]


def factor_of(drawn, rows):
    """By how much a picture was made larger; 0: it was not, by a whole number."""
    factor = len(drawn) // len(rows)
    return factor if len(drawn) == factor * len(rows) and len(drawn[0]) == factor * len(rows[0]) else 0


# ---- Kitty and iTerm2

def unwrapped(shown):
    """Takes what goes through tmux out of its wrapping."""
    return re.sub(rb"\x1bPtmux;((?:\x1b\x1b|[^\x1b])*)\x1b\\", lambda match: match[1].replace(b"\x1b\x1b", b"\x1b"), shown)


def kitty_pictures(shown):
    pictures, pieces = [], []
    for keys, payload in re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", shown):
        settings = dict(pair.split(b"=") for pair in keys.split(b","))
        if settings.get(b"a") == b"q":
            continue
        check(len(payload) <= 4096 and settings[b"q"] == b"2", f"a piece of {len(payload)} characters, {keys!r}")
        check(pieces or (settings[b"a"], settings[b"f"]) == (b"T", b"100"), f"begins with {keys!r}")
        pieces.append(payload)
        if settings.get(b"m", b"0") == b"0":
            pictures.append(base64.b64decode(b"".join(pieces), validate=True))
            pieces = []
    check(not pieces, "a picture without an end")
    return pictures


def iterm_pictures(shown):
    out = []
    for settings, payload in re.findall(rb"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", shown):
        data = base64.b64decode(payload, validate=True)
        check(b"inline=1" in settings.split(b";") and b"size=%d" % len(data) in settings.split(b";"), f"{settings!r}")
        out.append(data)
    return out


# ---- Sixel

def sixel_pictures(shown):
    return [sixel_picture(match[1].decode()) for match in re.finditer(rb"\x1bP[0-9;]*q([^\x1b]*)\x1b\\", shown)]


def sixel_picture(text):
    """Rows of (r, g, b) in percent; every pixel must have been drawn."""
    raster = re.match(r'"1;1;(\d+);(\d+)', text)
    width, height = int(raster[1]), int(raster[2])
    rows, colours, colour, x, y = [[None] * width for _ in range(height)], {}, None, 0, 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|(?:!(\d+))?([?-~])|([$-])", text[raster.end():]):
        if token[1]:
            colours[int(token[1])] = tuple(int(token[i]) for i in (2, 3, 4))
            check(max(colours[int(token[1])]) <= 100 and int(token[1]) < 256, token[0])
        elif token[5]:
            colour = colours[int(token[5])]
        elif token[7]:
            bits, count = ord(token[7]) - 63, int(token[6] or 1)
            for i in range(x, x + count):
                for k in range(6):
                    if bits >> k & 1:
                        check(rows[y + k][i] is None, "a pixel drawn twice")
                        rows[y + k][i] = colour
            x += count
        else:
            x, y = 0, y + (6 if token[8] == "-" else 0)
    check(all(pixel is not None for row in rows for pixel in row), "pixels that were not drawn")
    return rows


def percents(rows):
    return [[tuple((v * 100 + 127) // 255 for v in pixel) for pixel in row] for row in rows]


# ---- Blocks

def colour_256(index):
    if index >= 232:
        return (8 + 10 * (index - 232),) * 3
    levels = (0, 95, 135, 175, 215, 255)
    return levels[(index - 16) // 36], levels[(index - 16) // 6 % 6], levels[(index - 16) % 6]


def block_rows(shown):
    """Pixels of the lines that are half blocks, or blanks on a colour."""
    out = []
    for line in shown.decode().replace("\r\n", "\n").split("\n"):
        line = line.rsplit("\r", 1)[-1]  # what stood before was a progress bar
        upper, lower, front, back = [], [], None, None
        if "\x1b[0m" not in line or ("\u2580" not in line and "\x1b[48" not in line):
            continue
        for token in re.finditer(r"\x1b\[([0-9;]*)m|(\u2580)|(  )", line):
            if token[1] == "0":
                front = back = None
            elif token[1]:
                numbers = [int(n) for n in token[1].split(";")]
                value = tuple(numbers[2:]) if numbers[1] == 2 else colour_256(numbers[2])
                front, back = (value, back) if numbers[0] == 38 else (front, value)
            elif token[2]:
                upper.append(front)
                lower.append(back)
            else:
                upper.append(back)
        out.append(upper)
        if any(pixel is not None for pixel in lower):
            out.append(lower)
    return out
