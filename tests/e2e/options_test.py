"""Options of samplers and of guidance through the daemon: what GET /samplers and GET /models say is what POST /generate takes."""
import re

from harness import *  # noqa: F403

daemon = Daemon()
SAMPLERS = {row["name"]: row for row in daemon.get("/samplers").json["samplers"]}
MODEL = daemon.get("/models/tiny").json
SERVING = [SAMPLERS[name] for name in MODEL["samplers"] if not SAMPLERS[name]["needs_init_image"]]


def refused(code, field, **body):
    answer = daemon.post(body)
    same((answer.status, answer.json["code"], answer.json["field"]), (422, code, field), f"{body}: {answer.json.get('detail')}")
    return answer.json["detail"]


def made(**body):
    job = daemon.make(**{"class_label": 7, "seed": 3, "steps": 4, **body})
    same(job["state"], "succeeded", f"{body}: {job['error']}")
    return job


def picture(**body):
    return daemon.image(made(**body)["id"])


def digest(**body):
    return made(**body)["images"][0]["pixels_sha256"]


def wrong_values(field):
    if field["type"] == "boolean":
        return [0, "true", None]
    if field["type"] == "choice":
        return [0, "no-such-word", None]
    return [field["maximum"] + 1, field["minimum"] - 1, "1", None] + ([1.5] if field["type"] == "integer" else [])


def breaches(schema, value, root, at=""):
    """Where a value is not what its schema of openapi.json says: the parts of JSON Schema that the document uses."""
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return breaches(target, value, root, at)
    if "oneOf" in schema:
        return [] if sum(not breaches(one, value, root, at) for one in schema["oneOf"]) == 1 else [f"{at}: none of oneOf"]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)}
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if wanted and not any(isinstance(value, kinds[kind]) and not (isinstance(value, bool) and kind in ("integer", "number")) for kind in wanted):
        return [f"{at}: {value!r} is no {wanted}"]
    out = [f"{at}: {value!r}"] if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]) else []
    out += [f"{at}: {value!r}"] if isinstance(value, str) and not re.search(schema.get("pattern", ""), value) else []
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        out += [f"{at}: {value!r}"] if not schema.get("minimum", value) <= value <= schema.get("maximum", value) else []
    if isinstance(value, list):
        for i, element in enumerate(value):
            out += breaches(schema.get("items", {}), element, root, f"{at}/{i}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        out += [f"{at}: no {name}" for name in schema.get("required", []) if name not in value]
        out += [f"{at}: {name} is not in the document" for name in value if known and name not in known]
        for name in set(value) & set(known):
            out += breaches(known[name], value[name], root, f"{at}/{name}")
    return out


def conforms(name, value):
    found = breaches({"$ref": f"#/components/schemas/{name}"}, value, daemon.get("/openapi.json").json)
    check(not found, f"{name}: {found[:5]}")


@test
def answers_are_what_the_document_says():
    conforms("SamplerList", daemon.get("/samplers").json)
    conforms("Model", MODEL)
    conforms("ModelList", daemon.get("/models").json)
    conforms("Capabilities", daemon.get("/capabilities").json)
    for body in (dict(), dict(class_label=7, sampler="euler", sigma_schedule="karras", s_churn=1.5, guidance_method="apg", apg_eta=0.5),
                 dict(class_mixture=[{"class_label": 2, "weight": 0.5}], negative_class=1, variation_seed=2, variation_strength=0.5, n=2),
                 dict(class_label=7, sampler="ddim", clip_sample=False, timestep_spacing="trailing")):
        conforms("GenerateRequest", body)
        conforms("Job", daemon.make(steps=2, **body))
    conforms("Problem", daemon.post({"steps": 0}).json)
    check(breaches({"$ref": "#/components/schemas/Model"}, dict(MODEL, width="8"), daemon.get("/openapi.json").json), "a wrong type is seen")
    check(breaches({"$ref": "#/components/schemas/Model"}, dict(MODEL, odd=1), daemon.get("/openapi.json").json), "an odd member is seen")


@test
def every_field_that_is_shown_is_whole():
    for owner in [*SAMPLERS.values(), MODEL]:
        for field in owner["fields"]:
            check(field["help"] and field["type"] in ("number", "integer", "boolean", "choice"), field)
            if field["type"] == "choice":
                check(field["choices"] and (field["default"] is None or field["default"] in field["choices"]), field)
            elif field["type"] != "boolean":
                check(field["minimum"] <= field["maximum"], field)
                check(field["default"] is None or field["minimum"] <= field["default"] <= field["maximum"], field)


@test
def a_field_beyond_its_range_is_refused_by_name():
    for sampler in SERVING:
        for field in sampler["fields"]:
            for value in wrong_values(field):
                detail = refused("invalid-field", f"/{field['name']}", sampler=sampler["name"], steps=4, class_label=7, **{field["name"]: value})
                check(detail.startswith(field["name"]), detail)


@test
def a_field_of_another_sampler_is_refused_by_name():
    owners = {field["name"]: field for sampler in SERVING for field in sampler["fields"]}
    for sampler in SERVING:
        own = {field["name"] for field in sampler["fields"]}
        for name, field in owners.items():
            if name not in own:
                value = field.get("choices", [field.get("minimum", True)])[0]
                detail = refused("unsupported-option", f"/{name}", sampler=sampler["name"], steps=4, **{name: value})
                check(sampler["name"] in detail, detail)


@test
def every_default_that_is_sent_makes_the_same_picture():
    for sampler in SERVING:
        plain = None
        for field in sampler["fields"]:
            if field["default"] is None:
                continue
            answer = daemon.post({"sampler": sampler["name"], "steps": 4, "class_label": 7, "seed": 3, field["name"]: field["default"]})
            if answer.status == 422:  # an option that would do nothing beside the others' defaults
                check(" needs " in answer.json["detail"], answer.json["detail"])
                continue
            same(answer.status, 202, f"{sampler['name']} {field['name']}")
            job = daemon.wait(answer.json["id"])
            same(job["state"], "succeeded", f"{sampler['name']} {field['name']}: {job['error']}")
            plain = plain or daemon.make(sampler=sampler["name"], steps=4, class_label=7, seed=3)
            same(job["images"][0]["pixels_sha256"], plain["images"][0]["pixels_sha256"], f"{sampler['name']} with {field}")


@test
def a_sampler_that_cannot_serve_the_model_is_refused():
    for name in sorted(set(SAMPLERS) - set(MODEL["samplers"])):
        refused("unsupported-option", "/sampler", sampler=name)
    check("flow_euler" in SAMPLERS and "flow_euler" not in MODEL["samplers"], "the tiny model was not trained by flow matching")
    check("no_such" not in refused("invalid-field", "/sampler", sampler="no_such"), "what was sent is repeated")


@test
def the_models_own_sampler_has_its_options():
    own = SAMPLERS[MODEL["model_sampler"]]
    same(own["name"], "ddim", "the sampler of the folder's scheduler")
    check(digest(sampler="model", eta=1) != digest(sampler="model", eta=0), "eta does nothing")
    refused("unsupported-option", "/s_churn", sampler="model", s_churn=1)


@test
def options_reach_the_picture_and_its_recipe():
    body = dict(sampler="euler", sigma_schedule="karras", s_churn=2, guidance_scale=3)
    one, other = picture(**body), picture(**dict(body, sigma_schedule="exponential"))
    check(one != other, "sigma_schedule does nothing")
    request = json.loads(png_texts(one)["denoised"])["request"]
    same({name: request[name] for name in body}, body, "the recipe")
    request.pop("class_name")
    again = daemon.make(**request)
    same(daemon.image(again["id"]), one, "made again from its own recipe")


@test
def every_guidance_method_of_the_model_guides():
    methods = set(MODEL["guidance_methods"])
    check({"cfg", "cfg_pp", "apg"} <= methods, methods)
    plain = digest(sampler="ddim", guidance_scale=1)
    made = {"cfg": digest(sampler="ddim", guidance_scale=3, guidance_method="cfg"),
            "apg": digest(sampler="ddim", guidance_scale=3, guidance_method="apg", apg_eta=0, apg_norm_threshold=2, apg_momentum=-0.5),
            "cfg_pp": digest(sampler="ddim", guidance_scale=0.6, guidance_method="cfg_pp")}
    same(len({plain, *made.values()}), 4, "different pictures")
    same(digest(sampler="ddim", guidance_scale=3), made["cfg"], "the default method")
    for method in {"autoguidance", "classifier"} - methods:
        refused("unsupported-option", "/guidance_method", class_label=7, guidance_scale=2, guidance_method=method)
    refused("unsupported-option", "/guidance_method", class_label=7, guidance_scale=0.5, guidance_method="cfg_pp", sampler="dpmpp_2m")
    refused("invalid-field", "/guidance_scale", class_label=7, guidance_scale=3, guidance_method="cfg_pp", sampler="ddim")


@test
def what_steers_guidance_does():
    base = dict(sampler="ddim", guidance_scale=4)
    plain = digest(**base)
    for options in (dict(guidance_sigma_max=1), dict(guidance_sigma_min=2), dict(guidance_rescale=1), dict(guidance_channels=1),
                    dict(negative_class="Sandal")):
        check(digest(**base, **options) != plain, f"{options} does nothing")
    same(digest(**base, guidance_sigma_min=1e8), digest(sampler="ddim", guidance_scale=1), "an interval that holds nothing")
    same(digest(**base, guidance_rescale=0), plain, "rescale 0")
    same(digest(**base, guidance_channels=0), plain, "all channels")


@test
def steering_what_is_not_there_is_refused():
    refused("invalid-field", "/guidance_rescale", guidance_rescale=0.5)
    refused("invalid-field", "/guidance_sigma_max", class_label=7, guidance_scale=1, guidance_sigma_max=2)
    refused("invalid-field", "/guidance_sigma_max", class_label=7, guidance_sigma_min=3, guidance_sigma_max=2)
    refused("invalid-field", "/apg_eta", class_label=7, apg_eta=0)
    refused("unsupported-option", "/classifier_scale", class_label=7, classifier_scale=2)
    refused("invalid-field", "/negative_class", negative_class=1)
    refused("invalid-field", "/negative_class", class_label=7, guidance_scale=1, negative_class=1)


@test
def a_batch_of_many_samplers_gives_what_each_gives_alone():
    bodies = [{"class_label": i % 10, "seed": 11, "steps": 5, "sampler": row["name"], "guidance_scale": 1 + i % 3} for i, row in enumerate(SERVING)]
    answer = daemon.post(bodies)
    same(answer.status, 202, "the array")
    together = [daemon.wait(job["id"])["images"][0]["sha256"] for job in answer.json["jobs"]]
    for body, sha in zip(bodies, together):
        same(daemon.make(**body)["images"][0]["sha256"], sha, body["sampler"])


@test
def an_adaptive_sampler_has_no_total_and_tells_its_evaluations():
    job = made(sampler="rk45", rtol=0.01, atol=0.01, n=2)
    progress = job["progress"]
    same((progress["fraction"], progress["total"], progress["images_done"]), (None, None, 2), "progress of an ended job")
    check(all(6 <= image["evaluations"] <= 6000 for image in job["images"]), [image["evaluations"] for image in job["images"]])
    ended = [event for event in daemon.events(f"/jobs/{job['id']}/events") if event["event"] == "succeeded"]
    same(ended[0]["json"]["job"], job, "the last milestone and the job")
    same(made(sampler="heun", steps=4)["images"][0]["evaluations"], 7, "evaluations of Heun: two a step but the last")


run(__name__)
