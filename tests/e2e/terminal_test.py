"""`denoised generate` on terminals of every kind: what is drawn is decoded and held against the PNG; pipes and dumb terminals get no code."""
import hashlib
import re

from harness import *  # noqa: F403
import screen
from screen import Screen

GREY = os.path.join(ROOT, "models", "fashion-mnist")
LATENT = os.path.join(ROOT, "tests", "golden", "pipe_dit_ddpm10_cfg4")  # RGB of 64x64: more colours than sixel has


def file(name):
    return os.path.join(scratch("terminal"), name)


def command(path, *arguments, model=None):
    return [PROGRAM, "generate", "--model", model or tiny_model(), "--class", "7", "--seed", "42", "--steps", "2", "--threads", "1",
            "--output", path, *arguments]


def drawn(*arguments, model=None, status=0, **settings):
    """What the terminal was sent, and the picture's rows."""
    path = file("picture.png")
    shown, ended = Screen(command(path, *arguments, model=model), **settings).end()
    same(ended, status, f"the exit status ({shown[-500:]!r})")
    with open(path, "rb") as stream:
        return shown, screen.rows_of(stream.read())


def enlarged(got, rows, least=2):
    factor = screen.factor_of(got, rows)
    check(factor >= least, f"{len(got[0])}x{len(got)} of {len(rows[0])}x{len(rows)}")
    check(got == screen.scaled(rows, factor), "other pixels")


def no_code(shown):
    check(b"\x1b" not in shown and all(b >= 32 or b in b"\r\n" for b in shown), f"codes in {shown!r}")


# ---- Where pictures can be drawn

@test
def kitty_by_its_name_is_not_asked():
    for names in ({"TERM": "xterm-kitty"}, {"KITTY_WINDOW_ID": "1"}, {"TERM": "xterm-ghostty"}):
        shown, rows = drawn(answers=None, **names)
        check(screen.QUESTION not in shown, "it was asked")
        enlarged(screen.rows_of(screen.kitty_pictures(shown)[0]), rows, 32)


@test
def kitty_by_its_answer():
    shown, rows = drawn(model=GREY, answers=screen.KITTY)
    pictures = screen.kitty_pictures(shown)
    same(len(pictures), 1, "pictures")
    got = screen.rows_of(pictures[0])
    enlarged(got, rows, 8)
    # The place was made before it was drawn: as many lines as the picture covers, at the 16 pixels a cell that the terminal told.
    same(shown.count(b"\r\n\r\n" * 8), 1, "lines made")
    check(b"\x1b[16A\x1b7" in shown and b"\x1b8\x1b[16B\r" in shown, f"{shown[-80:]!r}")


@test
def iterm_by_its_name():
    for names in ({"TERM_PROGRAM": "iTerm.app"}, {"LC_TERMINAL": "iTerm2"}, {"TERM_PROGRAM": "WezTerm"}):
        shown, rows = drawn(answers=None, **names)
        enlarged(screen.rows_of(screen.iterm_pictures(shown)[0]), rows, 32)


@test
def sixel_by_its_answer_grey_and_few_colours():
    for model in (GREY, tiny_model()):
        shown, rows = drawn(model=model, answers=screen.SIXEL)
        enlarged(screen.sixel_pictures(shown)[0], screen.percents(rows), 8)


@test
def sixel_of_many_colours_is_near_in_the_mean():
    shown, rows = drawn(model=LATENT, answers=screen.SIXEL, columns=200, rows=100)
    got = screen.sixel_pictures(shown)[0]
    factor = screen.factor_of(got, rows)
    same(factor, 4, "the scale")
    check(len({p for row in rows for p in row}) > 256, "few colours")
    off = 0.0
    for y, row in enumerate(rows):
        for x, pixel in enumerate(row):
            for k in range(3):
                total = sum(got[y * factor + j][x * factor + i][k] for j in range(factor) for i in range(factor))
                off += abs(total / factor ** 2 - pixel[k] / 2.55)
    off /= 3 * len(rows) * len(rows[0])
    check(off < 1.5, f"off by {off:.2f} % in the mean")


@test
def asked_for_by_name_whatever_the_terminal():
    shown, rows = drawn("--show", "kitty", answers=None)
    enlarged(screen.rows_of(screen.kitty_pictures(shown)[0]), rows)
    shown, rows = drawn("--show=iterm", answers=None)
    enlarged(screen.rows_of(screen.iterm_pictures(shown)[0]), rows)
    shown, rows = drawn("--show=sixel", answers=None, pixels=(640, 480))
    enlarged(screen.sixel_pictures(shown)[0], screen.percents(rows))
    check(screen.QUESTION not in shown, "asked although it had told the size of its cells")
    shown, _ = drawn("--show=none", answers=screen.KITTY, TERM="xterm-kitty")
    no_code(shown)


@test
def tmux_hands_kitty_through_and_it_is_said():
    shown, rows = drawn("--show", "kitty", answers=None, TMUX="/tmp/tmux-0/default,1,0", TERM="tmux-256color")
    check(b"\x1b_G" not in re.sub(rb"\x1bPtmux;((?:\x1b\x1b|[^\x1b])*)\x1b\\", b"", shown), "codes outside of the wrapping")
    enlarged(screen.rows_of(screen.kitty_pictures(screen.unwrapped(shown))[0]), rows)
    check(b"allow-passthrough" in shown, "nothing was said")
    # By itself it takes what tmux says that it has, whatever the names that a shell there has inherited.
    shown, rows = drawn(answers=screen.PLAIN, TMUX="/tmp/tmux-0/default,1,0", TERM="tmux-256color", KITTY_WINDOW_ID="1", COLORTERM="truecolor")
    enlarged(screen.block_rows(shown), rows)


# ---- Blocks

@test
def half_blocks_in_every_colour():
    for model in (GREY, tiny_model()):
        shown, rows = drawn(model=model, answers=screen.PLAIN, COLORTERM="truecolor")
        enlarged(screen.block_rows(shown), rows, 1)
        check("\u2580" in shown.decode(), "no half blocks")


@test
def half_blocks_grow_with_the_window():
    shown, rows = drawn(model=GREY, answers=screen.PLAIN, COLORTERM="truecolor", columns=120, rows=60)
    enlarged(screen.block_rows(shown), rows, 2)


@test
def blanks_on_colours_without_utf8():
    shown, rows = drawn(answers=screen.PLAIN, COLORTERM="truecolor", LANG="C")
    enlarged(screen.block_rows(shown), rows, 1)
    check("\u2580" not in shown.decode(), "half blocks")


@test
def the_nearest_of_256_colours():
    shown, rows = drawn(answers=screen.PLAIN)
    got = screen.block_rows(shown)
    factor = screen.factor_of(got, rows)
    table = [screen.colour_256(i) for i in range(16, 256)]

    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b))
    for pixel, seen in zip([p for row in screen.scaled(rows, factor) for p in row], [p for row in got for p in row]):
        least = min(distance(pixel, one) for one in table)
        check(distance(pixel, seen) <= least + 30, f"{seen} for {pixel}: {distance(pixel, seen)}, not {least}")


@test
def no_colour_and_dumb_terminals_get_characters_alone():
    for names in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}, {"NO_COLOR": "1", "TERM": "xterm-kitty"}):
        shown, rows = drawn(model=GREY, answers=screen.KITTY, COLORTERM="truecolor", **names)
        no_code(shown)
        lines = shown.decode().replace("\r\n", "\n").split("\n")
        dense = [line for line in lines if re.fullmatch(r"[ .:\-=+*#%@]{8,32}", line)]
        check(len(dense) >= 5, f"{shown!r}")
        check(any("@" in line or "%" in line or "#" in line for line in dense), "nothing light")


@test
def a_silent_terminal_gets_blocks():
    shown, rows = drawn(answers=None, DENOISED_TERMINAL_WAIT="0.01", COLORTERM="truecolor")
    check(screen.QUESTION in shown, "it was not asked")
    enlarged(screen.block_rows(shown), rows)
    shown, rows = drawn(answers=screen.KITTY, DENOISED_TERMINAL_WAIT="0", COLORTERM="truecolor")
    check(screen.QUESTION not in shown, "it was asked")
    enlarged(screen.block_rows(shown), rows)


@test
def what_has_been_typed_is_left_alone():
    for typed in (b"ls -l\n", b"ls -l"):
        path = file("picture.png")
        terminal = Screen(command(path), answers=screen.KITTY, typed=typed, COLORTERM="truecolor")
        terminal.read()
        check(screen.QUESTION not in terminal.shown, "it was asked")
        check(screen.block_rows(terminal.shown), "no picture")
        same(terminal.left(), typed, "the input")
        terminal.close()


@test
def a_terminal_of_others_is_not_asked():
    shown, rows = drawn(answers=screen.KITTY, controlling=False, COLORTERM="truecolor")
    check(screen.QUESTION not in shown, "it was asked")
    enlarged(screen.block_rows(shown), rows)


@test
def the_console_is_not_asked():
    shown, _ = drawn(answers=screen.KITTY, TERM="linux")
    check(screen.QUESTION not in shown, "it was asked")


@test
def a_sheet_is_made_to_fit():
    shown, rows = drawn("--images", "6", answers=screen.PLAIN, model=GREY, COLORTERM="truecolor", columns=40)
    got = screen.block_rows(shown)
    check(len(rows[0]) > 40 >= len(got[0]) > 20, f"{len(got[0])} columns for {len(rows[0])} pixels")
    x, y = len(got[0]) // 2, len(got) // 2
    down = -(-len(rows[0]) // len(got[0]))
    near = [rows[y * down + j][x * down + i] for j in range(down) for i in range(down)]
    same(got[y][x], tuple((sum(p[k] for p in near) + down * down // 2) // (down * down) for k in range(3)), "a mean of pixels")


# ---- Pipes, JSON, progress

@test
def pipes_get_no_codes():
    path = file("picture.png")
    done = subprocess.run(command(path), capture_output=True, env=screen.clean({"TERM": "xterm-kitty", "COLORTERM": "truecolor"}), check=True)
    same((done.stdout, done.stderr), (b"", f"1 image, seed 42: {path}\n".encode()), "what was said")
    # The terminal behind a pipe is not written to either, and what is asked for by name is drawn.
    with open(file("out"), "wb+") as out:
        shown, status = Screen(command(path), stdout=out, stderr=out, answers=screen.KITTY).end()
        same((shown, status, os.path.getsize(out.name) > 0), (b"", 0, True), "what was shown")
    done = subprocess.run(command(path, "--show", "blocks"), capture_output=True, env=screen.clean({"COLORTERM": "truecolor"}), check=True)
    with open(path, "rb") as stream:
        enlarged(screen.block_rows(done.stdout), screen.rows_of(stream.read()))


@test
def progress_is_for_terminals():
    shown, _ = drawn("--show", "none")
    check(re.search(rb"\rdenoising \[[#.]{24}\] +[0-9]+ %, [0-9]+:[0-9][0-9] left", shown), f"{shown!r}")
    check(re.search(rb"left *\r +\r1 image, seed 42: [^\r]*\r\n$", shown), f"{shown!r}")
    shown, _ = drawn("--show", "none", TERM="dumb")
    check(b"denoising" not in shown, f"{shown!r}")


@test
def one_json_object():
    path, folder = file("picture.png"), scratch("folder")
    done = subprocess.run(command(path, "--json", "--output-dir", folder, "-n", "2"), capture_output=True, check=True)
    told = json.loads(done.stdout)
    same(done.stdout.count(b"\n"), 1, "lines")
    for entry in [told, *told["files"]]:
        with open(entry["file"], "rb") as stream:
            data = stream.read()
        same((entry["bytes"], entry["sha256"]), (len(data), hashlib.sha256(data).hexdigest()), entry["file"])
    same((told["file"], told["seed"], told["images"], told["steps"], told["width"], told["height"], told["channels"], told["sampler"]),
         (path, "42", 2, 2, 8, 8, 3, "dpmpp_2m"), "the object")
    same([f["seed"] for f in told["files"]], ["42", "43"], "seeds")
    check(told["ms"] >= 0 and told["latents"] is None and told["guidance_scale"] == 2, told)
    # On a terminal it is an object all the same.
    shown, status = Screen(command(path, "--json"), answers=screen.KITTY, stderr=subprocess.DEVNULL, TERM="xterm-kitty").end()
    same((status, json.loads(shown)["file"]), (0, path), "on a terminal")


@test
def a_picture_to_a_pipe():
    path = file("picture.png")
    subprocess.run(command(path), check=True, stderr=subprocess.DEVNULL)
    done = subprocess.run(command("-"), capture_output=True, check=True)
    with open(path, "rb") as stream:
        same(done.stdout, stream.read(), "the picture")
    same(done.stderr, b"1 image, seed 42\n", "what was said")


@test
def standard_output_holds_one_thing():
    shown, status = Screen(command("-"), answers=screen.KITTY).end()
    check(status == 64 and b"standard output is a terminal" in shown, f"{status} {shown!r}")
    for arguments in (["--json"], ["--show", "blocks"]):
        done = subprocess.run(command("-", *arguments), capture_output=True, check=False)
        check(done.returncode == 64 and b"both want standard output" in done.stderr and not done.stdout, f"{arguments}: {done}")
    done = subprocess.run(command(file("x.png"), "--json", "--show", "kitty"), capture_output=True, check=False)
    check(done.returncode == 64 and b"both want standard output" in done.stderr, done)
    done = subprocess.run(command(file("x.png"), "--show", "braille"), capture_output=True, check=False)
    check(done.returncode == 64 and b"auto|kitty|iterm|sixel|blocks|none" in done.stderr, done)


run(__name__)
