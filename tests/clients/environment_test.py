"""The environment of these tests is what requirements.txt says, and its clients can be imported."""
import importlib
import importlib.metadata
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
IMPORTED = ("axe_playwright_python", "openai", "schemathesis", "webuiapi")


def pinned():
    with open(os.path.join(HERE, "requirements.txt"), encoding="utf-8") as lines:
        found = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([A-Za-z0-9.]+)", line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    return [match.groups() for match in found]  # a line that pins nothing is an error here


def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main():
    wanted = pinned()
    if not any(installed(name) == version for name, version in wanted if name in IMPORTED):
        print("SKIP clients/environment: no build/venv (tests/clients/venv.sh says why)")
        return
    wrong = [f"{name} is {installed(name)}, not {version}" for name, version in wanted if installed(name) != version]
    if wrong:
        print(f"FAIL clients/environment: versions: {'; '.join(wrong)}")
        raise SystemExit(1)
    print("PASS clients/environment: versions")
    for name in IMPORTED:
        importlib.import_module(name)
    print("PASS clients/environment: imports")


main()
