"""Help, completions and the manual say the same, since they are made of the tables that the commands parse with."""
import re
import shutil

from harness import *  # noqa: F403


def said(*words, **settings):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=True, timeout=PATIENCE, **settings).stdout


def commands():
    return re.findall(r"^  ([a-z]+) ", said("help"), re.M)


def flags(command):
    """Every option with its letter, as --help-all tells them."""
    return {name: letter for letter, name in re.findall(r"^  (?:-(\w), |    )?--([a-z0-9-]+)\b", said(command, "--help-all"), re.M)}


def shell(name):
    if not shutil.which(name):
        raise Skip(f"{name} is not installed")
    path = os.path.join(scratch("completions"), f"c.{name}")
    with open(path, "w", encoding="utf8") as out:
        out.write(said("completions", name))
    subprocess.run([name, "-n", path], check=True, timeout=PATIENCE)
    return path


@test
def every_help_fits_a_screen():
    check(len(commands()) >= 19, commands())
    for words in [["help"], *([name, "--help"] for name in commands())]:
        lines = said(*words).splitlines()
        check(len(lines) <= 24 and max(map(len, lines)) <= 80, f"{words}: {len(lines)} lines, the longest {max(map(len, lines))}")
    for name in commands():
        check(max(map(len, said(name, "--help-all").splitlines())) <= 80, f"{name} --help-all")
        brief, every = said(name, "--help"), flags(name)
        shown = set(re.findall(r"^  (?:-\w, |    )?--([a-z0-9-]+)\b", brief, re.M)) - {"help-all"}
        check(shown <= set(every), f"{name}: {shown}")
        same("--help-all" in brief, shown != set(every), f"{name}: a hint at the rest")


@test
def bash_completes_commands_options_and_values():
    path = shell("bash")

    def completed(*words, folder=None):
        line = f"source {path}; COMP_WORDS=(denoised {' '.join(repr(w) for w in words)}); COMP_CWORD={len(words)}; _denoised; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, cwd=folder, timeout=PATIENCE).stdout.split("\n")[:-1]
    same(completed(""), [*commands(), "help"], "commands")
    for name in commands():
        same(sorted(completed(name, "--")), sorted({f"--{flag}" for flag in flags(name)} | {"--help-all"}), name)
    same(completed("generate", "--show", ""), "auto kitty iterm sixel blocks none".split(), "ways")
    same(completed("jobs", "--state", "s"), ["succeeded"], "states")
    check({"model", "ddim", "rk45"} <= set(completed("submit", "--sampler", "")), "samplers")
    same(completed("submit", "--sigma-schedule", "k"), ["karras"], "schedules")
    same(completed("key", ""), ["add", "list", "revoke"], "words")
    same(completed("serve", "--device-fallback", ""), ["cpu"], "the one device that can step in")
    same(completed("generate", "--steps", ""), [""], "a number")
    folder = scratch("files")
    os.mkdir(os.path.join(folder, "a folder"))
    for words in (("generate", "-o", "a"), ("generate", "--init-image", ""), ("inspect", ""), ("verify", "")):
        same(completed(*words, folder=folder), ["a folder"], words)


@test
def zsh_has_every_option():
    path = shell("zsh")
    with open(path, encoding="utf8") as stream:
        parts = dict(re.findall(r"^    ([a-z]+)\)\n(.*?)^        ;;", stream.read(), re.M | re.S))
    same(sorted(parts), sorted(commands()), "commands")
    for name in commands():
        same(set(re.findall(r"--([a-z0-9-]+)=?(?:\[|'\[)", parts[name])) | set(re.findall(r",--([a-z0-9-]+)=?\}", parts[name])), set(flags(name)) | {"help-all"}, name)
    # The file is one that compinit takes, and its function runs to where zsh wants its own completion to be active.
    done = subprocess.run(["zsh", "-fc", f"autoload -Uz compinit && compinit -u -D && source {path} && echo $_comps[denoised]"], capture_output=True, text=True,
                          check=True, timeout=PATIENCE, env=dict(os.environ, HOME=scratch("home")))
    same(done.stdout, "_denoised\n", "the function")


@test
def fish_completes_commands_options_and_values():
    path = shell("fish")

    def completed(line):
        done = subprocess.run(["fish", "--no-config", "-c", f"source {path}; complete -C '{line}'"], capture_output=True, text=True, check=True,
                              timeout=PATIENCE, env=dict(os.environ, HOME=scratch("home")), cwd=scratch("empty"))
        return [one.split("\t")[0] for one in done.stdout.splitlines()]
    same(sorted(completed("denoised ")), sorted([*commands(), "help"]), "commands")
    for name in ("serve", "generate", "submit", "completions"):
        same(set(completed(f"denoised {name} --")), {f"--{flag}{tail}" for flag in flags(name) for tail in [""]} | {"--help-all"}, name)
    same(sorted(completed("denoised generate --show ")), sorted("auto kitty iterm sixel blocks none".split()), "ways")
    same(sorted(completed("denoised key ")), ["add", "list", "revoke"], "words")


@test
def help_says_which_device_it_is():
    for name, device in (("generate", "auto"), ("verify", "auto"), ("inspect", "auto"), ("forward", "cpu"), ("evaluate", "auto; --likelihood: cpu")):
        check(f"auto: a GPU if there is one ({device})" in " ".join(said(name, "--help-all").split()), name)


@test
def shells_are_named():
    for words in (["completions"], ["completions", "csh"], ["completions", "bash", "zsh"]):
        same(subprocess.run([PROGRAM, *words], capture_output=True, check=False).returncode, 64, words)


@test
def the_manual_has_every_option_and_no_fault():
    text = said("manual")
    parts = dict(re.findall(r"^\.SS denoised (\w+)\n(.*?)(?=^\.S[SH])", text, re.M | re.S))
    same(sorted(parts), sorted(commands()), "commands")
    for name in commands():
        found = {flag.replace("\\-", "-") for flag in re.findall(r"^\.B (?:\\-\w\\fR, \\fB)?\\-\\-((?:\w|\\-)+)", parts[name], re.M)}
        same(found | {"help", "help-all"}, set(flags(name)) | {"help-all"}, name)
    check("@" not in text, "a mark is left")
    with open(os.path.join(ROOT, "server", "options.h"), encoding="utf8") as header:
        statuses = re.findall(r"DN_EXIT_\w+ = (\d+)", header.read())
    for status in statuses:
        check(re.search(rf"^\.TP\n{status}\n", text, re.M), f"exit status {status}")


@test
def the_manual_is_well_formed():
    path = os.path.join(scratch("manual"), "denoised.1")
    with open(path, "w", encoding="utf8") as out:
        out.write(said("manual"))
    tools = 0
    if shutil.which("mandoc"):
        tools += 1
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "style", path], capture_output=True, text=True, check=False)
        same((done.returncode, done.stdout), (0, ""), "mandoc")
    if shutil.which("man") and shutil.which("troff"):
        tools += 1
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], capture_output=True, check=False,
                              env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"))
        same((done.returncode, done.stderr), (0, b""), "man")
    if not tools:
        raise Skip("neither mandoc nor man is installed")


@test
def make_installs_them_where_shells_and_man_look():
    if not os.path.exists(os.path.join(ROOT, "build", "denoised")) or not os.path.exists(os.path.join(os.path.dirname(PROGRAM), "libdenoised.a")):
        raise Skip("build/denoised or the library is not built (make build)")
    folder = scratch("installed")
    subprocess.run(["make", "-o", "build", "install", f"DESTDIR={folder}", "PREFIX=/usr", f"OUT={os.path.dirname(PROGRAM)}", "COMMIT=dev"], cwd=ROOT, check=True,
                   capture_output=True, timeout=PATIENCE)
    for path, words in [("man/man1/denoised.1", ["manual"]), ("bash-completion/completions/denoised", ["completions", "bash"]),
                        ("zsh/site-functions/_denoised", ["completions", "zsh"]), ("fish/vendor_completions.d/denoised.fish", ["completions", "fish"])]:
        with open(os.path.join(folder, "usr/share", path), encoding="utf8") as stream:
            same(stream.read(), subprocess.run([os.path.join(folder, "usr/bin/denoised"), *words], capture_output=True, text=True, check=True).stdout, path)
    for room in ("cpu", "cuda"):
        same(os.path.exists(os.path.join(folder, "usr/include/denoised/backend", room)), False, f"headers from inside of backend/{room}")


run(__name__)
