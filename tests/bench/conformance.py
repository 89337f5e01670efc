"""The cases of openai-python, asked of Groundtone directly and through LiteLLM's proxy in front of it.

    ./gt bench conformance                       # a table of both lists
    ./gt bench conformance --write               # the same, into docs/reference/conformance.md
    ./gt bench conformance --lists tuning        # one list only

LiteLLM's routes (`/v1/chat/completions`, `/v1/files`, `/v1/fine_tuning/jobs`, ...) know Groundtone as an OpenAI at another address; its pass-through route
(`/openai_passthrough`) hands requests on as they are. Each of the three ways has a fresh server. The first job of the tuning list, which half of its cases look at,
is made at the server itself: a way that cannot create jobs may still be able to show one. LiteLLM comes from PyPI into the cache.
"""

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from proxy import ROOT, Running, free_port, litellm_proxy

SCRIPTS = {"answers": "conformance.py", "tuning": "conformance_tuning.py"}
WAYS = ("direct", "litellm", "pass-through")
EMBEDDER = "all-minilm-l6-v2-int8"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# The server calls the receiver itself, whichever way the job was made.
NO_WAY = {"webhooks_are_signed"}
PAGE = ROOT / "docs/reference/conformance.md"
BEGIN, END = "<!-- written by ./gt bench conformance --write -->", "<!-- end -->"


def serve(binary, folder):
    """The shop that is described in `folder`."""
    environment = {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data"), "HOOK_SECRET": SECRET}
    subprocess.run([binary, "ingest", str(folder / "documents")], check=True, cwd=folder, env=environment, capture_output=True)
    log = open(folder / "server.log", "w")
    running = Running([binary, "serve", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log)
    for line in running.process.stdout:
        if "http://" in line:
            return running, "http://" + line.split("http://")[1].split()[0].rstrip("/")
    sys.exit(f"groundtone did not start: {Path(log.name).read_text()[-2000:]}")


def in_front(folder, server, base):
    """LiteLLM with the server as its OpenAI: every model by its own name, and the routes of files and jobs."""
    upstream = {"api_base": f"{server}/v1", "api_key": "unused"}
    # In the order in which the server lists them: the assistant, the embedder, the base models.
    names = {"shop": "openai/shop", EMBEDDER: f"openai/{EMBEDDER}", base: f"openai/{base}", "*": "openai/*"}
    config = {
        "model_list": [{"model_name": name, "litellm_params": {"model": model, **upstream}} for name, model in names.items()],
        "files_settings": [{"custom_llm_provider": "openai", **upstream}],
        "finetune_settings": [{"custom_llm_provider": "openai", **upstream}],
        # One answer of the server for one request, also after it has refused.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    return litellm_proxy(folder, config, OPENAI_API_BASE=upstream["api_base"], OPENAI_API_KEY="unused")


def ask(name, way, binary, shop, folder):
    """Runs a list one way; gives each case's result, and LiteLLM's version."""
    hook, started, found = free_port(), [], None
    try:
        if name == "answers":
            started.append(Running([shop, "answers", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            base = started[0].process.stdout.readline().strip()
        else:
            base = subprocess.run([shop, "tuning", str(folder), str(hook)], check=True, capture_output=True, text=True).stdout.strip()
        server, address = serve(binary, folder)
        started.append(server)
        environment, url = {**os.environ}, f"{address}/v1"
        if way != "direct":
            running, proxy, found, environment["GROUNDTONE_TEST_KEY"] = in_front(folder, address, base)
            environment["GROUNDTONE_TEST_MAKER"] = f"{address}/v1"
            started.append(running)
            url = f"{proxy}/v1" if way == "litellm" else f"{proxy}/openai_passthrough"
        arguments = [sys.executable, str(ROOT / "tests/python" / SCRIPTS[name]), url] + ([base, str(hook), SECRET] if name == "tuning" else [])
        errors = open(folder / "script.log", "w")
        run = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=1800)
    finally:
        for running in reversed(started):
            running.stop()
    results = {}
    for line in run.stdout.splitlines():
        if line.startswith("ok "):
            results[line.removeprefix("ok ")] = None
        elif line.startswith("not ok "):
            case, _, why = line.removeprefix("not ok ").partition(" - ")
            results[case] = why.replace(url, "URL").replace(address, "SERVER")
    if not results:
        sys.exit(f"{name}, {way}: nothing ran: {Path(errors.name).read_text()[-2000:]}")
    return results, found


def cell(case, way, result):
    if case in NO_WAY and way != "direct":
        return "–"
    if result is None:
        return "passes"
    # What the API said, without the SDK's words around it.
    short = re.sub(r"^\w+: Error code: (\d+)(?: - )?", r"\1 ", result.removeprefix("AssertionError: ")).strip()
    short = short if len(short) <= 100 else short[:97] + "..."
    return short.replace("|", "\\|").replace("<", "&lt;")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--lists", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of everything that ran")
    options = parser.parse_args()
    # What was started is stopped, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "shop"], check=True, cwd=ROOT)
    shop = str(Path(options.binary).parent / "examples" / "shop")
    found, peer = {}, None
    with tempfile.TemporaryDirectory() as scratch:
        scratch = options.keep or Path(scratch)
        for name in options.lists:
            for way in options.ways:
                folder = scratch / f"{name}-{way}"
                folder.mkdir(parents=True)
                found[name, way], version = ask(name, way, options.binary, shop, folder)
                peer = peer or version
                print(f"{name}, {way}: {sum(r is None for r in found[name, way].values())} of {len(found[name, way])}", file=sys.stderr)
    import openai

    today = datetime.date.today().isoformat()
    lines = [f"`./gt bench conformance`, {today}: openai-python {openai.__version__}, LiteLLM {peer}.", ""]
    lines += [f"| list | {' | '.join(options.ways)} |", "|---" * (len(options.ways) + 1) + "|"]
    for name in options.lists:
        counts = []
        for way in options.ways:
            counted = {case: why for case, why in found[name, way].items() if case not in NO_WAY or way == "direct"}
            counts.append(f"{sum(why is None for why in counted.values())} of {len(counted)}")
        lines.append(f"| {name} | {' | '.join(counts)} |")
    for name in options.lists:
        lines += ["", f"### {name.capitalize()}", "", f"| case | {' | '.join(options.ways)} |", "|---" * (len(options.ways) + 1) + "|"]
        cases = list(dict.fromkeys(case for way in options.ways for case in found[name, way]))
        for case in cases:
            cells = [cell(case, way, found[name, way].get(case, "did not run")) for way in options.ways]
            lines.append(f"| {case} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.write:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")
    print(json.dumps({f"{name}/{way}": results for (name, way), results in found.items()}), file=sys.stderr)


if __name__ == "__main__":
    main()
