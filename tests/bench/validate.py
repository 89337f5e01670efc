"""Measures `groundtone dataset validate` beside the logic of OpenAI's cookbook notebook and a plain loop of `json.loads`. Each part prints one JSON line for each figure.

    ./gt bench validate [--parts speed,defects,valid,json,tokens] [--megabytes 2048] [--rounds 2] [--data FOLDER] [--vocabulary FILE]

speed    MB/s and memory of the three on one file of valid rows, in turn. The notebook keeps the whole file in memory; here its checks read line by line, which is faster and smaller
defects  one file for each kind of defect: which of the three notices that something is wrong with it
valid    every training file below FOLDER that its makers call valid (openai-cookbook-data, together-cookbook-data, zava-cora): problems found
json     JSONTestSuite below FOLDER: texts that must be read, and texts that must not
tokens   tokens of 10,000 rows by `dataset stats` and by Python's tiktoken with the cookbook's sum. Needs `pip install tiktoken`; its vocabulary (o200k_base.tiktoken)
         is taken from the crate tiktoken-rs in cargo's registry, or from --vocabulary
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEED = 20261127
WORDS = "kettle grinder teapot filter handle motor lid seal base cord scale burr delivery refund order voucher price Grüße 🚲 naïve".split()


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}}, ensure_ascii=False), flush=True)


def cookbook(lines):
    """The checks of the cookbook's notebook "Data preparation and analysis for chat model fine-tuning", as they stand there; the number of format errors."""
    errors = 0
    for line in lines:
        example = json.loads(line)
        if not isinstance(example, dict):
            errors += 1
            continue
        messages = example.get("messages", None)
        if not messages:
            errors += 1
            continue
        for message in messages:
            if "role" not in message or "content" not in message:
                errors += 1
            if any(key not in ("role", "content", "name", "function_call", "weight") for key in message):
                errors += 1
            if message.get("role", None) not in ("system", "user", "assistant", "function"):
                errors += 1
            content = message.get("content", None)
            function_call = message.get("function_call", None)
            if (not content and not function_call) or not isinstance(content, str):
                errors += 1
        if not any(message.get("role", None) == "assistant" for message in messages):
            errors += 1
    return errors


def plain(lines):
    errors = 0
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            errors += 1
    return errors


def child(function, path):
    """Runs one of the Python checks in a process of its own: seconds, seconds of processor, peak memory in MB, errors or the exception."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        start = time.perf_counter()
        try:
            with open(path, encoding="utf-8") as lines:
                result = function(lines)
        except Exception as error:
            result = f"{type(error).__name__}"
        os.write(writer, json.dumps([time.perf_counter() - start, result]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        seconds, result = json.load(answer)
    _, _, usage = os.wait4(pid, 0)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, result


def watched(command):
    """Runs a command: seconds, seconds of processor, peak memory in MB, standard output, exit code.

    The peak is read from the running process: what `wait4` tells includes this one's memory, from before the command took its place.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=error, env={**os.environ, "GROUNDTONE_OFFLINE": "1"})
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            try:
                program = os.readlink(f"/proc/{process.pid}/exe")
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except OSError:
                continue
            if Path(program).name == Path(command[0]).name:
                peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        error.seek(0)
        text = out.read().decode()
        if not text:
            sys.exit(error.read().decode())
        return seconds, usage.ru_utime + usage.ru_stime, peak / 1024, text, process.returncode


def validate(binary, path, *flags):
    """Seconds, seconds of processor, peak memory in MB, the report."""
    seconds, processor, peak, text, code = watched([binary, "dataset", "validate", str(path), "--json", *flags])
    report = json.loads(text.strip().splitlines()[-1])
    assert (code == 0) == (report["errors"] == 0), (code, report["errors"])
    return seconds, processor, peak, report


def text(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def valid_row(rng, tools=True):
    messages = [{"role": "system", "content": text(rng, 12)}]
    for _ in range(rng.randrange(1, 4)):
        messages += [{"role": "user", "content": text(rng, rng.randrange(5, 120))}, {"role": "assistant", "content": text(rng, rng.randrange(5, 60)) + '\n"quoted"'}]
    row = {"messages": messages}
    if tools and rng.random() < 0.1:
        messages.insert(-1, {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "price", "arguments": '{"sku": "A1"}'}}]})
        messages.insert(-1, {"role": "tool", "tool_call_id": "call_1", "content": "5"})
        row["tools"] = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}}}}]
    return row


def write_valid(path, megabytes, tools=True):
    rng = random.Random(SEED)
    block = "".join(json.dumps(valid_row(rng, tools), ensure_ascii=rng.random() < 0.3) + "\n" for _ in range(20_000)).encode()
    with path.open("wb") as out:
        size = 0
        while size < megabytes * 1_000_000:
            out.write(block)
            size += len(block)
    return size


def speed(binary, folder, megabytes, rounds):
    path = folder / "speed.jsonl"
    # The notebook does not know tools; its figures are of rows that it can read.
    size = write_valid(path, megabytes, tools=False)
    # Once before, so that all three read from memory and not from the disk.
    validate(binary, path)
    who = {"groundtone": lambda: validate(binary, path), "plain json.loads": lambda: child(plain, path), "cookbook notebook": lambda: child(cookbook, path)}
    found = {name: [] for name in who}
    for _ in range(rounds):
        for name, run in who.items():
            found[name].append(run())
    for name, runs in found.items():
        seconds, processor, _, result = min(runs, key=lambda run: run[0])
        errors = result["errors"] if isinstance(result, dict) else result
        say("speed", who=name, megabytes=size / 1e6, rounds=rounds, best_seconds=seconds, worst_seconds=max(run[0] for run in runs), mb_per_second=size / 1e6 / seconds,
            mb_per_cpu_second=size / 1e6 / processor, peak_rss_mb=max(run[2] for run in runs), errors=errors, cores=os.cpu_count(), load=os.getloadavg()[0])
    path.unlink()


def vocabulary(given):
    """The vocabulary that Python's tiktoken would download: the Rust crate carries it."""
    if given:
        return given
    registry = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "registry/src"
    return next(iter(sorted(registry.glob("*/tiktoken-rs-*/assets/o200k_base.tiktoken"))), None)


def tokens(binary, folder, given):
    path = vocabulary(given)
    try:
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe
        from tiktoken_ext.openai_public import o200k_base
    except ImportError:
        return say("tokens", skipped="tiktoken is not installed")
    if path is None:
        return say("tokens", skipped="no o200k_base.tiktoken was found; name it with --vocabulary")
    # The constructor of tiktoken itself, with the file in place of the download.
    import tiktoken_ext.openai_public as public

    public.load_tiktoken_bpe = lambda *_, **__: load_tiktoken_bpe(str(path))
    encoding = tiktoken.Encoding(**o200k_base())
    rng = random.Random(SEED)
    rows = [valid_row(rng, tools=False) for _ in range(10_000)]
    for row in rows[::3]:
        row["messages"][-2]["name"] = "Ann_1"
    data = folder / "tokens.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    # `num_tokens_from_messages` of the cookbook's notebook.
    count = lambda text: len(encoding.encode(text, disallowed_special=()))
    theirs = sum(3 + sum(3 + sum(count(value) + (key == "name") for key, value in message.items()) for message in row["messages"]) for row in rows)
    *_, text, _ = watched([binary, "dataset", "stats", str(data), "--model", "gpt-4.1", "--json"])
    ours = json.loads(text.strip().splitlines()[-1])["parts"][0]["tokens"]["row"]["total"]
    say("tokens", rows=len(rows), tiktoken=theirs, groundtone=ours, equal=theirs == ours, tiktoken_version=tiktoken.__version__)


def defects():
    """Kinds of defects by name: a function of a valid row that returns the broken line."""
    rng = random.Random(SEED)
    good = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Price?"}, {"role": "assistant", "content": "Five euro."}]}
    call = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{}"}}
    tools = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}]
    line = json.dumps(good)

    def message(at, **changes):
        row = json.loads(line)
        for key, value in changes.items():
            if value is Ellipsis:
                row["messages"][at].pop(key)
            else:
                row["messages"][at][key] = value
        return json.dumps(row)

    def messages(*list_, **more):
        return json.dumps({"messages": list(list_), **more})

    user, assistant = good["messages"][1], good["messages"][2]
    calling = {"role": "assistant", "tool_calls": [call]}
    kinds = {
        "cut off": line[:-5], "trailing comma": line.replace("}]}", "},]}"), "missing comma": line.replace("}, {", "} {"), "missing colon": line.replace('"role":', '"role"', 1),
        "python dict": str(good), "python None": line.replace('"Five euro."', "None"), "NaN": line.replace('"Five euro."', "NaN"), "unquoted key": line.replace('"role"', "role", 1),
        "raw tab in a text": line.replace("Five", "Fi\tve"), "bad escape": line.replace("Five", "Fi\\qve"), "lone surrogate": line.replace("Five", "\\ud83d"), "comment": line + " // x",
        "two rows in a line": line + line, "leading zero": line.replace('"Five euro."', "05"), "unescaped quote": line.replace("Five", 'the "five"'), "blank line": "", "array row": "[1]", "text row": '"x"',
        "duplicate key": line.replace('"role": "user"', '"role": "user", "role": "user"'), "no messages": "{}", "misspelt messages": line.replace("messages", "mesages"), "messages object": '{"messages": {}}', "messages empty": '{"messages": []}',
        "message text": '{"messages": ["x"]}', "no role": message(1, role=...), "role null": message(1, role=None), "role human": message(1, role="human"), "no content": message(1, content=...), "content null": message(1, content=None),
        "content number": message(1, content=5), "assistant empty": message(2, content=""), "assistant null": message(2, content=None), "unknown key": message(2, wieght=1), "weight 0.5": message(2, weight=0.5), "weight text": message(2, weight="1"),
        "weight on the user": message(1, weight=0), "all weights 0": message(2, weight=0), "no assistant": messages(user), "ends with the user": messages(user, assistant, user), "name number": message(1, name=7),
        "unknown part": message(1, content=[{"type": "image"}]), "part without text": message(1, content=[{"type": "text"}]), "no parts": message(1, content=[]), "picture from a disk": message(1, content=[{"type": "image_url", "image_url": {"url": "C:/a.png"}}]),
        "assistant shows a picture": message(2, content=[{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]), "unknown detail": message(1, content=[{"type": "image_url", "image_url": {"url": "https://x.org/a.png", "detail": "max"}}]),
        "call without id": messages(user, {"role": "assistant", "tool_calls": [{k: v for k, v in call.items() if k != "id"}]}, tools=tools), "arguments object": messages(user, {"role": "assistant", "tool_calls": [{**call, "function": {"name": "price", "arguments": {}}}]}, tools=tools),
        "no calls": messages(user, {"role": "assistant", "content": "x", "tool_calls": []}), "tool without id": messages(user, calling, {"role": "tool", "content": "5"}, assistant, tools=tools), "tool with unknown id": messages(user, calling, {"role": "tool", "tool_call_id": "c1", "content": "5"}, {"role": "tool", "tool_call_id": "c9", "content": "5"}, assistant, tools=tools),
        "unanswered call": messages(user, calling, user, assistant, tools=tools), "undeclared function": messages(user, calling, tools=[{"type": "function", "function": {"name": "other"}}]), "tools object": messages(user, assistant, tools={}), "tool without function": messages(user, assistant, tools=[{"name": "f"}]),
        "tool name with a blank": messages(user, assistant, tools=[{"type": "function", "function": {"name": "get price"}}]), "parameters list": messages(user, assistant, functions=[{"name": "f", "parameters": []}]), "functions empty": messages(user, assistant, functions=[]),
        "parallel text": messages(user, assistant, parallel_tool_calls="no"), "ShareGPT row": '{"conversations": [{"from": "human", "value": "x"}]}', "Alpaca row": '{"instruction": "x", "output": "y"}', "prompt and completion": '{"prompt": "x", "completion": "y"}',
        "preference row": '{"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}', "too long to learn": message(1, content="word " * 70_000),
    }
    files = {name: [line] * 6 + [broken] + [line] * 6 for name, broken in kinds.items()}
    bytes_of = {name: ("\n".join(rows) + "\n").encode("utf-8", "surrogatepass") for name, rows in files.items()}
    whole = ("\n".join([line] * 12) + "\n").encode()
    bytes_of |= {"byte order mark": b"\xef\xbb\xbf" + whole, "UTF-16": whole.decode().encode("utf-16"), "not UTF-8": whole.replace(b"Five", b"F\xfcnf", 1), "one array": b"[" + whole.replace(b"\n", b",\n")[:-2] + b"]\n", "nine rows": ("\n".join([line] * 9) + "\n").encode(), "empty file": b""}
    rng.random()
    return bytes_of, whole


def seeded(binary, folder):
    kinds, whole = defects()
    found = {"groundtone": [], "cookbook notebook": [], "plain json.loads": []}
    path = folder / "defect.jsonl"
    path.write_bytes(whole)
    assert validate(binary, path)[3]["counts"] == {} and child(cookbook, path)[3] == 0 and child(plain, path)[3] == 0
    for name, content in kinds.items():
        path.write_bytes(content)
        if validate(binary, path)[3]["counts"]:
            found["groundtone"].append(name)
        for who, function in (("cookbook notebook", cookbook), ("plain json.loads", plain)):
            if child(function, path)[3] != 0:
                found[who].append(name)
    for who, names in found.items():
        missed = [name for name in kinds if name not in names]
        say("defects", who=who, kinds=len(kinds), found=len(names), missed=missed if len(missed) < 12 else len(missed))


def valid(binary, data):
    for name in ("openai-cookbook-data", "together-cookbook-data", "zava-cora"):
        for path in sorted((data / name).rglob("*.jsonl")):
            with path.open(encoding="utf-8-sig") as lines:
                first = json.loads(lines.readline())
            if "messages" not in first:
                continue
            *_, report = validate(binary, path)
            notebook = child(cookbook, path)[3]
            say("valid", file=f"{name}/{path.name}", rows=report["rows"], problems=report["counts"], cookbook_notebook_errors=notebook)


def suite(binary, data, folder):
    """A text is a file of one line; line ends inside it are blanks to JSON. Whether it was read shows in the rules that it broke."""
    right, wrong = {"y": 0, "n": 0}, []
    path = folder / "text.jsonl"
    for source in sorted((data / "jsontestsuite").rglob("test_parsing/*.json")):
        kind = source.name[0]
        if kind == "i":
            continue
        content = source.read_bytes()
        path.write_bytes(content.replace(b"\n", b" ") if kind == "y" else content)
        counts = validate(binary, path, "--target", "trl")[3]["counts"]
        syntax = [rule for rule in counts if rule.startswith("json-") and rule != "json-array" or rule in ("utf-8", "utf-16", "empty-file", "bom", "blank-line")]
        # A text that begins with a bracket is told as an array, and not looked into: wrap it for the parser.
        if "json-array" in counts:
            path.write_bytes(b'{"x":' + content.strip(b"\n").replace(b"\n", b" " if kind == "y" else b"\n") + b"}")
            counts = validate(binary, path, "--target", "trl")[3]["counts"]
            syntax = [rule for rule in counts if rule.startswith("json-") or rule == "utf-8"]
        if (kind == "y") == (not syntax):
            right[kind] += 1
        else:
            wrong.append(source.name)
    say("json", must_be_read=right["y"], must_not=right["n"], wrong=wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--parts", default="speed,defects,valid,json,tokens")
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "speed" in parts:
            speed(arguments.binary, folder, arguments.megabytes, arguments.rounds)
        if "defects" in parts:
            seeded(arguments.binary, folder)
        if arguments.data and "valid" in parts:
            valid(arguments.binary, arguments.data)
        if arguments.data and "json" in parts:
            suite(arguments.binary, arguments.data, folder)
        if "tokens" in parts:
            tokens(arguments.binary, folder, arguments.vocabulary)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
