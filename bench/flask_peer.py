"""The peer: a Flask application that answers the dynamic query from memory. Runs in an environment of its own.

Two of them: one decides for each request as the rules say, on lists that it made when it started; the other decides
nothing, and looks up answers that were worked out before, which is the least that a Flask application can do.
"""

import json
import os

from flask import Flask, request

MEMORY = json.loads(open(os.environ["BENCH_MEMORY"]).read())
ANSWERS, IMAGES, CONSIDER = MEMORY["answers"], MEMORY["images"], MEMORY["consider"]
FIELDS = ("product", "release", "variant", "arch", "version", "buildid", "branch")


def order(image):
    """What images are sorted by."""
    day, number = image["buildid"].split(".")
    return ([int(part) for part in image["version"].split(".")], image["release"], day, int(number))


STREAMS = {}
for one in IMAGES:
    one["order"] = order(one["image"])
    STREAMS.setdefault((one["image"]["variant"], one["image"]["branch"]), []).append(one)

app = Flask(__name__)


@app.route("/lookup")
def lookup():
    """Look the answer up."""
    try:
        key = "/".join(request.args[field] for field in FIELDS)
    except KeyError:
        return "Malformed request", 400
    return app.response_class(ANSWERS.get(key, ""), mimetype="application/json")


@app.route("/")
def decide():
    """Gather the candidates, sort them, and walk them."""
    try:
        image = {field: request.args[field] for field in FIELDS}
        own = order(image)
        checkpoint = max(int(request.args.get(key, 0)) for key in ("requires_checkpoint", "introduces_checkpoint"))
    except (KeyError, ValueError):
        return "Malformed request", 400
    found = []
    for branch in (image["branch"], *CONSIDER.get(image["branch"], ())):
        found += STREAMS.get((image["variant"], branch), ())
    found.sort(key=lambda one: one["order"])
    way = walk(found, own, checkpoint)
    if not way:
        return ""
    candidates = [{"image": one["image"], "update_path": one["update_path"]} for one in way]
    return app.response_class(
        json.dumps({"minor": {"release": image["release"], "candidates": candidates}}), mimetype="application/json"
    )


def walk(found, own, checkpoint):
    """Collect the checkpoints on the way to the newest."""
    newest = found[-1]
    required = newest["image"].get("requires_checkpoint", 0)
    if checkpoint > required or own >= newest["order"]:
        return []
    way = []
    for one in found:
        image = one["image"]
        introduces = image.get("introduces_checkpoint", 0)
        between = image["branch"] == newest["image"]["branch"] and one is not newest and introduces
        if between and image.get("requires_checkpoint", 0) == checkpoint <= required:
            way.append(one)
            checkpoint = introduces
    return [*way, newest] if checkpoint == required else []
