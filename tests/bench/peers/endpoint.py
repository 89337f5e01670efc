"""A mock of `/v1/embeddings` that takes a fixed time a call and counts what it is asked for. One for all three systems, in a process of its own.

    python3 endpoint.py MILLISECONDS [words]      prints its port; GET /stats gives the counts since the last GET /stats

Nagle is off, and header and body are one write: a first mock without that added 45 ms of its own. Vectors follow from the text, as floats or base64 as the caller asks;
with `words` they are sums of the words' vectors, so that texts with words in common are near each other.
"""

import base64
import functools
import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import array

DIMENSIONS = 64


@functools.lru_cache(maxsize=1 << 18)
def hashed(text):
    """The same text, the same vector; its length is near one."""
    digest = hashlib.sha512(text.encode()).digest()
    return [(byte - 127.5) / 590.0 for byte in digest]


def summed(text):
    words = [hashed(word) for word in "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()] or [hashed("")]
    total = [sum(column) for column in zip(*words)]
    length = sum(number * number for number in total) ** 0.5 or 1.0
    return [number / length for number in total]


class Counts:
    def __init__(self):
        self.lock, self.seen = threading.Lock(), set()
        self.requests = self.texts = self.again = 0

    def add(self, texts):
        with self.lock:
            self.requests += 1
            self.texts += len(texts)
            for text in texts:
                key = hashlib.sha256(text.encode()).digest()
                self.again += key in self.seen
                self.seen.add(key)

    def take(self):
        with self.lock:
            counts = {"requests": self.requests, "texts": self.texts, "wasted_texts": self.again}
            self.requests = self.texts = self.again = 0
            return counts


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    counts = Counts()
    seconds = 0.0
    vector = staticmethod(hashed)

    def log_message(self, *_):
        pass

    def answer(self, body):
        body = json.dumps(body).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def do_GET(self):
        self.answer(self.counts.take())

    def do_POST(self):
        began = time.monotonic()
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
        self.counts.add(texts)
        vectors = [self.vector(text) for text in texts]
        if request.get("encoding_format") == "base64":
            vectors = [base64.b64encode(array.array("f", numbers).tobytes()).decode() for numbers in vectors]
        data = [{"object": "embedding", "index": at, "embedding": numbers} for at, numbers in enumerate(vectors)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        time.sleep(max(0.0, self.seconds - (time.monotonic() - began)))
        self.answer({"object": "list", "model": request["model"], "data": data, "usage": usage})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    Handler.seconds = float(sys.argv[1]) / 1000
    if "words" in sys.argv[2:]:
        Handler.vector = staticmethod(summed)
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
