"""LangChain and LlamaIndex, unmodified, as clients of the demo with its real local model. Too heavy for every build: run it by hand.

    ./gt bench clients
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = [
    "langchain==1.4.7",
    "langchain-openai==1.7.3",
    "llama-index-core==0.14.25",
    "llama-index-llms-openai-like",
    "llama-index-embeddings-openai-like==0.4.0",
]
ASK = "How long do I have to return something?"
CASES = []


def case(function):
    CASES.append(function)
    return function


def installed():
    cache = Path(os.environ.get("GROUNDTONE_CACHE", Path.home() / ".cache/groundtone")) / "peers" / "clients"
    if not cache.exists():
        print(f"installing {' '.join(PACKAGES)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", f"{cache}.tmp", *PACKAGES], check=True)
        Path(f"{cache}.tmp").rename(cache)
    return cache


def chain(url, **options):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="kettlewren", base_url=url, api_key="unused", temperature=0, timeout=300, **options)


def like(url):
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(model="kettlewren", api_base=url, api_key="unused", is_chat_model=True, temperature=0, max_tokens=60, timeout=300)


@case
def langchain_invoke_has_usage(url):
    answer = chain(url).invoke(ASK)
    assert answer.content and answer.usage_metadata["total_tokens"] > 0 and answer.response_metadata["finish_reason"] in ("stop", "length")


@case
def langchain_messages(url):
    assert chain(url).invoke([("system", "Be brief."), ("human", "Hi"), ("ai", "Hello."), ("human", ASK)]).content


@case
def langchain_stream(url):
    pieces = list(chain(url, stream_usage=True).stream(ASK))
    assert "".join(p.content for p in pieces) == chain(url).invoke(ASK).content
    assert any(p.usage_metadata for p in pieces)


@case
def langchain_batch(url):
    assert all(answer.content for answer in chain(url).batch([ASK, "Which cards do you accept?"]))


@case
def langchain_async(url):
    async def both():
        return await chain(url).ainvoke(ASK), [p async for p in chain(url).astream(ASK)]

    whole, pieces = asyncio.run(both())
    assert whole.content == "".join(p.content for p in pieces)


@case
def langchain_runnable(url):
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    assert (ChatPromptTemplate.from_messages([("human", "{question}")]) | chain(url) | StrOutputParser()).invoke({"question": ASK})


@case
def langchain_responses_api(url):
    answer = chain(url, use_responses_api=True).invoke(ASK)
    assert answer.text and answer.usage_metadata["total_tokens"] > 0


@case
def langchain_responses_api_streamed(url):
    assert "".join(p.text for p in chain(url, use_responses_api=True).stream(ASK))


@case
def langchain_errors(url):
    import openai

    try:
        chain(url, max_retries=0).bind(temperature=9).invoke(ASK)
    except openai.BadRequestError as error:
        assert error.param == "temperature"
    else:
        raise AssertionError("it was accepted")


@case
def langchain_embeddings(url):
    from langchain_openai import OpenAIEmbeddings

    model = OpenAIEmbeddings(model="all-minilm-l6-v2-int8", base_url=url, api_key="unused", check_embedding_ctx_length=False)
    assert len(model.embed_query("a kettle")) == 384 and len(model.embed_documents(["a", "b", "c"])) == 3


@case
def llamaindex_complete(url):
    assert like(url).complete(ASK).text


@case
def llamaindex_chat(url):
    from llama_index.core.llms import ChatMessage

    assert like(url).chat([ChatMessage(role="user", content=ASK)]).message.content


@case
def llamaindex_stream(url):
    from llama_index.core.llms import ChatMessage

    message = ChatMessage(role="user", content=ASK)
    assert [p for p in like(url).stream_chat([message])][-1].message.content == like(url).chat([message]).message.content


@case
def llamaindex_async(url):
    assert asyncio.run(like(url).acomplete(ASK)).text


@case
def llamaindex_embeddings(url):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    model = OpenAILikeEmbedding(model_name="all-minilm-l6-v2-int8", api_base=url, api_key="unused")
    assert len(model.get_query_embedding("a kettle")) == 384 and len(model.get_text_embedding_batch(["a", "b"])) == 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(installed()))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        command = [options.binary, "demo", "--port", "0", "--data", f"{folder}/data"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "GROUNDTONE_OFFLINE": "1"})
        try:
            address = next(line for line in server.stdout if "http://" in line).split("http://")[1].split()[0].rstrip("/")
            url = f"http://{address}/v1"
            for function in CASES:
                try:
                    function(url)
                    print("ok", function.__name__)
                except Exception as problem:  # every case is run, and every failure shown
                    failed.append(function.__name__)
                    print("FAILED", function.__name__, type(problem).__name__, problem)
        finally:
            server.terminate()
            server.wait(timeout=30)
    print(json.dumps({"cases": len(CASES), "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
