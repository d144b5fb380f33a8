"""The ledger itself: rows that no acknowledged id explains are given to asks in doubt wherever there is a way."""
import json

from harness import run, same, test
from ledger import Ask, give


def rows(*seeds):
    return [{"row": number, "id": str(number), "request": json.dumps({"seed": seed})} for number, seed in enumerate(seeds)]


def ask(*seeds):
    return Ask([{"seed": seed} for seed in seeds])


def given(stored, asks):
    found = give(rows(*stored), sorted(asks, key=lambda one: -len(one.jobs)))
    return None if found is None else [(len(one.jobs), [row["row"] for row in group]) for one, group in found]


@test
def an_array_that_fits_earlier_rows_is_kept_for_the_later_ones_that_need_it():
    same(given("ABC", [ask("A", "B"), ask("B", "C"), ask("A")]), [(1, [0]), (2, [1, 2])], "who has which rows")
    same(given("ABAB", [ask("A", "B"), ask("A"), ask("B")]), [(2, [0, 1]), (1, [2]), (1, [3])], "who has which rows")


@test
def what_no_ask_explains_is_found():
    same(given("ABC", [ask("A", "B"), ask("A"), ask("B")]), None, "a row too many")
    same(given("AA", [ask("A")]), None, "a job that is there twice")
    same(given("A", [ask("A", "B")]), None, "part of an array")
    same(given("BA", [ask("A", "B")]), None, "an array in another order")
    same(given("", [ask("A")]), [], "an ask whose job was not stored")


run(__name__)
