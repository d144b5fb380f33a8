#!/usr/bin/env python3
"""Writes api/openapi.json from api/openapi.yaml (needs Debian's python3-yaml; the build does not run it, a test compares the two)."""
import json
import pathlib

import yaml

folder = pathlib.Path(__file__).resolve().parent


def render():
    document = yaml.safe_load((folder / "openapi.yaml").read_text(encoding="utf-8"))
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    (folder / "openapi.json").write_text(render(), encoding="utf-8")
