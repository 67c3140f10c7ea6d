"""A Flask program: counts visits in redis, keeps uploads under names of their own, and lets `sort` make a report."""

import logging
import subprocess
import tempfile
import uuid
from pathlib import Path

import prices
import redis
from flask import Flask, request

logging.basicConfig(filename="/var/log/app.log", level=logging.INFO)
app = Flask(__name__)
UPLOADS = Path("/data/uploads")
UPLOADS.mkdir(exist_ok=True)


@app.route("/visits")
def visits() -> str:
    cache = redis.Redis(host="cache")
    app.logger.info("a visit")
    return f"{cache.incr('visits')}\n"


@app.route("/price")
def price() -> str:
    return f"{prices.price(request.args.get('of', ''))}\n"


@app.route("/upload", methods=["POST"])
def upload() -> str:
    with tempfile.NamedTemporaryFile(dir="/tmp", delete=False) as file:
        file.write(request.get_data())
    kept = UPLOADS / f"{uuid.uuid4()}.bin"
    kept.write_bytes(Path(file.name).read_bytes())
    Path(file.name).unlink()
    return f"{kept.name}\n"


@app.route("/report")
def report() -> str:
    names = "\n".join(path.name for path in UPLOADS.iterdir())
    return subprocess.run(["/usr/bin/sort"], input=names, capture_output=True, text=True, check=True).stdout
