#!/usr/bin/env python3
"""api/openapi.yaml, api/openapi.json and the C headers say the same. Prints PASS/FAIL lines; run from the repository root."""
import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, "api")
FAILED = 0


def check(name, problems):
    global FAILED
    if problems:
        FAILED += 1
        print(f"FAIL openapi_{name}: {'; '.join(map(str, problems))[:600]}")
    else:
        print(f"PASS openapi_{name}")


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


def defines():
    return {name: float(value) for name, value in re.findall(r"^#define (API_\w+) ([0-9.]+)", read("api/limits.h"), re.M)}


def references(node, at="#"):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for key, value in node.items():
            yield from references(value, f"{at}/{key}")
    elif isinstance(node, list):
        for value in node:
            yield from references(value, at)


def resolves(document, reference):
    node = document
    for part in reference.removeprefix("#/").split("/"):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def limit(schema):
    """Of every daemon, or of one that was told nothing else."""
    return schema["const"] if "const" in schema else schema["default"]


def limits_differ(schemas):
    values = defines()
    shown = schemas["Capabilities"]["properties"]["limits"]["properties"]
    named = dict(re.findall(r'X\("(\w+)", (API_\w+)\)', read("api/limits.h")))
    problems = [f"{name}: not in both" for name in set(named) ^ set(shown)]
    problems += [f"{name}: {limit(shown[name])} and {values[macro]}" for name, macro in named.items()
                 if name in shown and limit(shown[name]) != values[macro]]
    left_out = {m for m in values if m not in named.values()} - {"API_ID_BYTES"}
    return problems + [f"{macro} is shown nowhere" for macro in sorted(left_out)]


def bounds_differ(document, schemas):
    v = defines()
    p = schemas["GenerateRequest"]["properties"]
    listing = {q["name"]: q["schema"] for q in document["paths"]["/jobs"]["get"]["parameters"]}
    body = document["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    key = document["components"]["parameters"]["IdempotencyKey"]["schema"]
    rows = [
        ("steps", (p["steps"]["minimum"], p["steps"]["maximum"]), (1, v["API_STEPS_MAX"])),
        ("n", (p["n"]["minimum"], p["n"]["maximum"]), (1, v["API_N_MAX"])),
        ("priority", (p["priority"]["minimum"], p["priority"]["maximum"]), (-v["API_PRIORITY_MAX"], v["API_PRIORITY_MAX"])),
        ("guidance_scale", (p["guidance_scale"]["minimum"], p["guidance_scale"]["maximum"]), (-v["API_GUIDANCE_MAX"], v["API_GUIDANCE_MAX"])),
        ("limit", (listing["limit"]["maximum"], listing["limit"]["default"]), (v["API_LIST_LIMIT_MAX"], v["API_LIST_LIMIT"])),
        ("class_mixture", p["class_mixture"]["maxItems"], v["API_CLASS_MIXTURE_MAX"]),
        ("weight", p["class_mixture"]["items"]["properties"]["weight"]["maximum"], v["API_CLASS_WEIGHT_MAX"]),
        ("array", body[1]["maxItems"], v["API_BATCH_JOBS_MAX"]),
        ("key", key["maxLength"], v["API_KEY_BYTES_MAX"]),
        ("model", schemas["ModelName"]["pattern"], "^[A-Za-z0-9._-]{1,%d}$" % v["API_MODEL_NAME_BYTES_MAX"]),
        ("id", schemas["JobId"]["pattern"], "^[a-z2-7]{%d}$" % v["API_ID_BYTES"]),
    ]
    return [f"{name}: {shown} and {held}" for name, shown, held in rows if shown != held]


def options():
    """The engine's table of options: name to its schema without the description."""
    text = read("engine/diffusion/options.c")
    words = {name: re.findall(r'"(\w+)"', body) for name, body in re.findall(r"static const char \*const (\w+)\[\] = \{([^}]*)\}", text)}
    rows = re.findall(r'\[DN_OPT_\w+\] = \{"(\w+)", (?:(NUMBER|INTEGER)\(([^,]+), ([^)]+)\)|(BOOLEAN)|CHOICE\((\w+)\))', text)
    return {name: {"type": kind.lower(), "minimum": float(low), "maximum": float(high)} if kind else
            {"type": "boolean"} if boolean else {"type": "string", "enum": words[choice]}
            for name, kind, low, high, boolean, choice in rows}


def options_differ(schemas):
    shown = schemas["GenerateRequest"]["properties"]
    rows = options()
    return [f"{name}: {shown.get(name)} and {held}" for name, held in rows.items()
            if {k: v for k, v in shown.get(name, {}).items() if k != "description"} != held] or ([] if rows else ["no table"])


def routes_differ(document):
    """The daemon's table and the paths; `open` in the one is `security: [{}]` in the other."""
    served = {(m, path, scopes == "0") for m, path, scopes in
              re.findall(r'^    \{"(\w+)", "([^"]+)", \w+, \w+, ([A-Z_ |]+|0)\},', read("server/routes.c"), re.M)}
    shown = {(m.upper(), re.sub(r"\{\w+\}", "{}", path).removesuffix(".png"), operation.get("security") == [{}])
             for path, item in document["paths"].items() for m, operation in item.items() if m in ("get", "post", "delete")}
    return sorted(served ^ shown) or ([] if served else ["no table"])


def responses(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for status, response in operation["responses"].items() if method in ("get", "post", "delete") else ():
                while "$ref" in response:
                    response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
                yield f"{method.upper()} {path} {status}", response


def answers_without_id(document):
    return [name for name, response in responses(document) if "X-Request-Id" not in response.get("headers", {})]


def refusals_left_out(document):
    """What any request may be answered with: broken HTTP, a body that may not come, a wrong host, our own fault, too much at once."""
    shown = {name for name, response in responses(document)}
    operations = {name.rsplit(" ", 1)[0] for name in shown}
    return [f"{operation} {status}" for operation in sorted(operations) for status in (400, 413, 421, 500, 503) if f"{operation} {status}" not in shown]


def openai_fields_differ(schemas):
    own = re.findall(r'^    \{"(\w+)", read_\w+\}', read("api/openai_request.c"), re.M)
    shown = schemas["OpenAIImagesRequest"]["properties"]
    return sorted(set(shown) ^ (set(own) | set(schemas["GenerateRequest"]["properties"]))) or ([] if own else ["no table"])


def headers_left_out(text):
    """What the daemon's sources put into answers and the description never names."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(pathlib.Path("server").glob("*.c")))
    put = set(re.findall(r'http_add_header\(\s*\w+,\s*"([A-Za-z-]+)"', sources)) | set(re.findall(r'add_response_header\(\s*\w+,\s*"([A-Za-z-]+)"', sources))
    return sorted(name for name in put if not re.search(rf"(?<![A-Za-z-]){name}(?![A-Za-z-])", text)) or ([] if put else ["none found"])


def main():
    try:
        import openapi_json
    except ImportError:
        print("SKIP openapi: python3-yaml is not installed")
        return
    document = json.loads(read("api/openapi.json"))
    schemas = document["components"]["schemas"]
    check("json_is_made_from_yaml", [] if openapi_json.render() == read("api/openapi.json") else ["run api/openapi_json.py"])
    used = set(references(document))
    check("references_resolve", [r for r in used if not resolves(document, r)])
    kinds = ("schemas", "parameters", "headers", "responses")
    unused = [f"{kind}/{name}" for kind in kinds for name in document["components"][kind] if f"#/components/{kind}/{name}" not in used]
    check("every_component_is_used", unused)
    fields = re.findall(r'^    X\(\w+, "(\w+)"\)', read("api/request_reader.h"), re.M) + list(options())
    check("fields_are_the_validators", sorted(set(fields) ^ set(schemas["GenerateRequest"]["properties"])) or ([] if fields else ["no table"]))
    check("openai_takes_its_own_fields_and_these", openai_fields_differ(schemas))
    check("options_are_the_engines_table", options_differ(schemas))
    check("limits_are_limits_h", limits_differ(schemas))
    check("bounds_are_limits_h", bounds_differ(document, schemas))
    codes = re.findall(r'X\(\w+, \d+, "([a-z-]+)"', read("api/problem.h"))
    check("codes_are_problem_h", sorted(set(codes) ^ set(schemas["Problem"]["properties"]["code"]["enum"])) or ([] if codes else ["no table"]))
    sdapi = re.findall(r"^    X\((\w+), [A-Z]+, ", read("api/sdapi_fields.h"), re.M)
    check("sdapi_fields_are_the_table", sorted(set(sdapi) ^ set(schemas["SdapiRequest"]["properties"])) or ([] if sdapi else ["no table"]))
    sdapi_options = re.findall(r'^    \{"(\w+)", .*, (?:FREE|FIXED)\},', read("api/sdapi_options.c"), re.M)
    check("sdapi_options_are_the_table", sorted(set(sdapi_options) ^ set(schemas["SdapiOptions"]["properties"])) or ([] if sdapi_options else ["no table"]))
    states = re.findall(r'\[API_STATE_\w+\] = "(\w+)"', read("api/views.c"))
    check("states_are_views_c", sorted(set(states) ^ set(schemas["State"]["enum"])) or ([] if states else ["no table"]))
    accepted = set(schemas["AcceptedRequest"]["properties"]) - {"class_name", "negative_class_name"}
    check("paths_are_the_daemons_routes", routes_differ(document))
    verdicts = re.findall(r'X\(\w+, "([a-z-]+)"\)', read("api/verification.h"))
    shown = schemas["Verification"]["properties"]["reasons"]["items"]["properties"]["code"]["enum"]
    check("reasons_are_verification_h", sorted(set(verdicts) ^ set(shown)) or ([] if verdicts else ["no table"]))
    check("every_header_is_named", headers_left_out(read("api/openapi.yaml")))
    check("every_answer_has_an_id", answers_without_id(document))
    check("every_operation_has_what_any_may_be_answered_with", refusals_left_out(document))
    check("accepted_shows_every_field", sorted(accepted ^ set(schemas["GenerateRequest"]["properties"])))


main()
sys.exit(1 if FAILED else 0)
