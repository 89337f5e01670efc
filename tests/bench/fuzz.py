"""Gives damaged copies of the fixtures to `groundtone extract-worker` for some time per format and counts what comes of it.

    ./gt bench fuzz [--seconds 600] [--seed 1] [--format pdf] [--keep FOLDER]

A worker answers with text or a reason, a parser that panics included (`panicked`; the worker then ends by itself). One that aborts, hangs or runs out of memory is lost:
it is counted, its file kept in --keep, and a fresh worker goes on, exactly what a run does. Anything else - nonsense on the wire, a worker that ends without being told to - is `broken`.
Files inside a zip are damaged before they are packed, so that the damage gets past the checksums.
"""

import argparse
import collections
import io
import json
import random
import re
import socket
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ORDERS = {"memory_bytes": 512 << 20, "limits": {"max_text_bytes": 64 << 20, "max_nesting": 256, "max_pages": 5000}}
TIMEOUT = 10
# Files kept for one place.
KEPT = 3
SAMPLES = {
    "md": b"---\ntitle: a\n---\n# A\n\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "html": b"<html><head><title>a</title></head><body><h1>A</h1><table><tr><td>1</td></tr></table><ul><li>b</ul></body></html>",
    "csv": b'sku,product\nK1,"Kettle, small"\nK2,"a ""b"""\n',
    "rs": b'fn main() { let x = "a"; }\n',
}


class Worker:
    """A worker process and the socket to it (ingest/src/extract/frame.rs)."""

    def __init__(self, binary):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen([binary, "extract-worker"], stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        theirs.close()
        self.socket = ours
        self.socket.settimeout(TIMEOUT)
        self.send(json.dumps(ORDERS).encode())

    def send(self, data):
        self.socket.sendall(struct.pack("<I", len(data)) + data)

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("the worker is gone")
            data += piece
        return data

    def read(self, name, data):
        """`text`, `refused` or `panicked`, and where it panicked; raises when the worker dies or hangs."""
        self.send(name.encode())
        self.send(data)
        answer = json.loads(self.receive(struct.unpack("<I", self.receive(4))[0]))
        if "panicked" in answer:
            return "panicked", answer["panicked"]
        return "text" if "Ok" in answer["found"] else "refused", None

    def last_words(self):
        if self.process.stderr.closed:
            return ""
        self.socket.close()
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.process.communicate()[1].decode(errors="replace").strip()


def damage(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        at, length = dice.randrange(len(data)), dice.choice([1, 2, 4, 16, 256])
        match dice.randrange(6):
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                data[at : at + length] = dice.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * dice.choice([1, 2, 50])
            case 4:
                data[at : at + 1] = dice.choice([b"0", b"-1", b"99999999999", b"\xff\xff\xff\xff", b"<", b">", b"&", b"[", b"(", b"/"])
            case 5:
                del data[at:]
    return bytes(data)


def damage_zip(data, dice):
    """Damages one file of an archive, leaves one out, or gives one another's content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    victim = dice.choice(list(entries))
    match dice.randrange(8):
        case 0:
            del entries[victim]
        case 1:
            entries[victim] = entries[dice.choice(list(entries))]
        case _:
            entries[victim] = damage(entries[victim], dice)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return packed.getvalue()


def fuzz(binary, ending, seeds, seconds, dice, keep):
    counts, places, worker, end = collections.Counter(), collections.Counter(), Worker(binary), time.time() + seconds
    while time.time() < end:
        seed = dice.choice(seeds)
        data = damage_zip(seed, dice) if seed.startswith(b"PK") and dice.random() < 0.8 else damage(seed, dice)
        try:
            fate, place = worker.read(f"a.{ending}", data)
            counts[fate] += 1
            if place is None:
                continue
        except ValueError:
            fate, place = "broken", "an answer that is none"
            counts[fate] += 1
        except (OSError, ConnectionError) as error:
            words = worker.last_words()
            if isinstance(error, TimeoutError):
                fate = "hung"
            elif "memory allocation of" in words:
                fate = "out of memory"
            elif "overflowed its stack" in words:
                fate = "stack overflow"
            elif worker.process.returncode < 0:
                fate = f"killed by signal {-worker.process.returncode}"
            else:
                fate = "broken"
            counts[fate] += 1
            place = fate
        places[place] += 1
        if places[place] == 1:
            print(f"{ending}: {fate}: {place}", file=sys.stderr, flush=True)
        if keep and places[place] <= KEPT:
            (keep / f"{re.sub(r'[^a-z0-9]+', '-', place.lower())}-{places[place]}.{ending}").write_bytes(data)
        worker.last_words()
        worker = Worker(binary)
    worker.last_words()
    return {"inputs": sum(counts.values()), **counts, "places": dict(places)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=60, help="for each format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", help="one file ending; all of them where not given")
    parser.add_argument("--keep", type=Path, help="folder for files that killed a worker")
    arguments = parser.parse_args()
    seeds = collections.defaultdict(list, {ending: [text] for ending, text in SAMPLES.items()})
    for path in sorted((ROOT / "ingest/tests/fixtures").iterdir()):
        if path.suffix != ".py":
            seeds[path.suffix[1:]].append(path.read_bytes())
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    result = {}
    for ending in sorted(seeds):
        if arguments.format in (None, ending):
            dice = random.Random(f"{arguments.seed} {ending}")
            result[ending] = fuzz(arguments.binary, ending, seeds[ending], arguments.seconds, dice, arguments.keep)
            print(f"{ending}: {json.dumps(result[ending])}", file=sys.stderr, flush=True)
    broken = sum(counts.get("broken", 0) for counts in result.values())
    print(json.dumps({"seconds_each": arguments.seconds, "seed": arguments.seed, "formats": result}))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
