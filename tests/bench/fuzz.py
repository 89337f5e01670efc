"""Gives damaged copies of the fixtures to `groundtone extract-worker` for some time per format and counts what comes of it.

    ./gt bench fuzz [--seconds 60] [--seed 1] [--format pdf] [--keep FOLDER]

A worker must answer with text or a reason. One that dies or hangs is counted, its file kept in --keep, and a fresh worker goes on: exactly what a run does.
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
        """`text`, or `refused`; raises when the worker dies or hangs."""
        self.send(name.encode())
        self.send(data)
        answer = json.loads(self.receive(struct.unpack("<I", self.receive(4))[0]))
        return "text" if "Ok" in answer else "refused"

    def last_words(self):
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
    counts, seen, worker, end = collections.Counter(), set(), Worker(binary), time.time() + seconds
    while time.time() < end:
        seed = dice.choice(seeds)
        data = damage_zip(seed, dice) if seed.startswith(b"PK") and dice.random() < 0.8 else damage(seed, dice)
        try:
            counts[worker.read(f"a.{ending}", data)] += 1
        except (OSError, ConnectionError) as error:
            words = worker.last_words()
            if isinstance(error, TimeoutError):
                fate = "hung"
            elif "memory allocation of" in words or "capacity overflow" in words:
                fate = "out of memory"
            else:
                fate = "crashed"
            counts[fate] += 1
            place = re.search(r"panicked at \S*?([\w-]+-[\d.]+/src/\S+:\d+):\d+:", words)
            place = place.group(1) if place else fate
            if place not in seen:
                seen.add(place)
                print(f"{ending}: {fate}: {place}", file=sys.stderr)
            if keep:
                (keep / f"{fate.replace(' ', '-')}-{counts[fate]}.{ending}").write_bytes(data)
            worker = Worker(binary)
    worker.last_words()
    return counts


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
            result[ending] = dict(fuzz(arguments.binary, ending, seeds[ending], arguments.seconds, dice, arguments.keep))
            print(f"{ending}: {result[ending]}", file=sys.stderr)
    print(json.dumps({"seconds_each": arguments.seconds, "seed": arguments.seed, "formats": result}))


if __name__ == "__main__":
    main()
