"""Makes requests that fit openapi.json fit the pod's model too.

The document cannot say which columns a model reads, that columns have the same length, how wide
its vectors are, or how much a pod returns. Requests that only break that would all be refused, and nothing behind the
refusal would be seen. Those that are meant to be wrong stay as they are.
"""

import itertools
import os

import schemathesis

MODEL = os.environ["OPENAPI_MODEL"]
COLUMNS = os.environ["OPENAPI_COLUMNS"].split(",")
USERS = os.environ["OPENAPI_CONTEXT"].split(",")  # columns that items do not have
WIDTH = int(os.environ["OPENAPI_WIDTH"])  # of the vectors that Retrieve takes
VECTOR_MAX = 2.0**50
TOP_MAX = 10_000  # of a pod's limits


def row(given, names=COLUMNS):
    """The values of an object under names that the model knows."""
    return dict(zip(names, given.values()))


def columns(given, names=COLUMNS):
    """The values of an object of arrays, as many of each, or one."""
    known = row(given, names)
    length = max(map(len, known.values()))
    return {
        name: values if len(values) == 1 else list(itertools.islice(itertools.cycle(values or [None]), length))
        for name, values in known.items()
    }


def events(given, names=COLUMNS):
    return columns(given, names) if isinstance(given, dict) else [row(one, names) for one in given]


def known(body):
    """A body that the model can answer."""
    body = dict(body)
    if "context" in body and "candidates" not in body:  # the items bring the rest
        body["context"] = row(body["context"], USERS)
        return asked(body)
    if "columns" in body:
        body["columns"] = columns(body["columns"])
    if "events" in body:
        body["events"] = events(body["events"])
    if "event" in body:
        body["event"] = row(body["event"])
    free = COLUMNS
    if "context" in body:
        body["context"] = dict(list(row(body["context"]).items())[:2])
        free = [name for name in COLUMNS if name not in body["context"]]
    if "candidates" in body:
        body["candidates"] = events(body["candidates"], free)
        rows = body["candidates"]
        names = list(rows if isinstance(rows, dict) else rows[0])
        body["filters"] = [
            {**one, "column": names[len(one["column"]) % len(names)]} for one in body.get("filters", [])
        ]
    return asked(body)


def asked(body):
    if "model" in body:
        body["model"] = ["", MODEL][len(body["model"]) % 2]
    if "top" in body:
        body["top"] = min(body["top"], TOP_MAX)
    if "vector" in body:
        vector = [max(-VECTOR_MAX, min(VECTOR_MAX, x)) for x in body["vector"]]
        body["vector"] = list(itertools.islice(itertools.cycle(vector), WIDTH))
    return body


@schemathesis.hook
def map_case(context, case):
    meant_wrong = case.meta is not None and not case.meta.generation.mode.is_positive  # the document's examples have none
    if meant_wrong or not isinstance(case.body, dict):
        return case
    case.body = known(case.body)
    # Nobody can say whether a millisecond is enough.
    if "Freshet-Deadline-Ms" in case.headers:
        case.headers["Freshet-Deadline-Ms"] = str(max(1000, int(case.headers["Freshet-Deadline-Ms"])))
    return case
