"""deploy/METRICS.md lists what /metrics has, word for word. `metrics_list_test.py --write` writes it anew."""
import re

from harness import *  # noqa: F403

LIST = os.path.join(ROOT, "deploy", "METRICS.md")
HEAD = """# What /metrics counts

Prometheus text, always there. Times are seconds, sizes bytes; histograms have `_bucket`, `_sum` and `_count`. The text beside each name is the
daemon's own (`# HELP`); a test keeps this list and the daemon equal.

| name | type | what |
| --- | --- | --- |
"""


def shown():
    with Daemon() as daemon:
        daemon.make(class_label=1, steps=2, seed=1, guidance_scale=1)
        text = daemon.get("/metrics").body.decode()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M))
    samples = {re.sub(r"_(bucket|sum|count)$", "", name) if re.sub(r"_(bucket|sum|count)$", "", name) in types else name
               for name in re.findall(r"^([a-z_]+)[{ ]", text, re.M)}
    same(sorted(helps), sorted(types), "names with help and with a type")
    same(sorted(samples - set(types)), [], "samples without a type")
    return [(name, types[name], helps[name]) for name in helps]


def listed():
    with open(LIST, encoding="utf8") as text:
        return re.findall(r"^\| `(\S+)` \| (\w+) \| (.*) \|$", text.read(), re.M)


@test
def the_list_of_metrics_is_the_daemons():
    same(sorted(listed()), sorted(shown()), "deploy/METRICS.md (metrics_list_test.py --write)")


if sys.argv[1:] == ["--write"]:
    with open(LIST, "w", encoding="utf8") as out:
        out.write(HEAD + "".join(f"| `{name}` | {kind} | {said} |\n" for name, kind, said in sorted(shown())))
else:
    run(__name__)
