"""What the table of hostile cases (hostile_test.py) does not say of refusals: what they hold, and what they leave behind."""
from harness import *  # noqa: F403

daemon = Daemon()

@test
def values_are_never_echoed():
    answer = daemon.post('{"sampler": "<script>alert(1)</script>"}')
    check(b"script" not in answer.body, "the value came back")
    answer = daemon.post('{"<b>": 1}')
    same(answer.status, 422, "status")
    check(b"<b>" not in answer.body, "the unknown name came back")


@test
def an_ambiguous_class_lists_its_indices():
    detail = daemon.post({"class_label": "trainer"}).json["detail"]
    check("7" in detail and "9" in detail, detail)


@test
def a_method_that_is_not_served_is_told_which_are():
    answer = daemon.call("PUT", "/generate", "{}")
    same((answer.status, answer.headers["allow"]), (405, "POST"), "PUT /generate")
    answer = daemon.call("POST", "/jobs", "{}")
    same((answer.status, answer.headers["allow"]), (405, "GET, HEAD"), "POST /jobs")
    answer = daemon.call("PATCH", "/jobs/" + "a" * 26)
    same((answer.status, answer.headers["allow"]), (405, "GET, HEAD, DELETE"), "PATCH of a job")


@test
def refusals_leave_no_row():
    for body in ('{"steps": 0}', '[{"steps": 5}, {"steps": 0}]', '{"steps": 5', "[]"):
        check(daemon.post(body).status in (400, 422), body)
    same(daemon.jobs_in_store(), 0, "rows of the job table")


@test
def the_daemon_is_well_after_all_this():
    same(daemon.get("/healthz").status, 200, "health")
    job = daemon.make(class_label="sneaker", steps=2, seed=1)
    same(job["state"], "succeeded", "state")


run(__name__)
