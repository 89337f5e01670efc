"""LangChain and LlamaIndex, unmodified, against the shop's server: one line `ok NAME` for each case of docs/reference/conformance.md."""

import asyncio
import json
import sys

from cases import KEY, case, run

URL = sys.argv[1]
ASK = "How long can I send my grinder back?"


def chain(**options):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="shop", base_url=URL, api_key=KEY, **{"temperature": 0, "timeout": 60, **options})


def like(**options):
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(model="shop", api_base=URL, api_key=KEY, is_chat_model=True, temperature=0, max_tokens=60, timeout=60, **options)


@case
def langchain_invoke_has_usage():
    answer = chain().invoke(ASK)
    assert answer.content and answer.usage_metadata["total_tokens"] > 0 and answer.response_metadata["finish_reason"] in ("stop", "length")


@case
def langchain_messages():
    sent = json.loads(chain().invoke([("system", "Be brief."), ("human", "Hi"), ("ai", "Hello."), ("human", "HISTORY " + ASK)]).content)
    assert sent["roles"][0] == "system" and sent["roles"][-3:] == ["user", "assistant", "user"] and "Be brief." in sent["messages"][0]["content"], sent


@case
def langchain_tool_calls():
    from langchain_core.tools import tool

    @tool
    def price(sku: str) -> str:
        """What it costs."""
        return "89 euro"

    answer = chain().bind_tools([price]).invoke(ASK)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("price", {"sku": "G1"}), ("price", {"sku": "G2"})]


@case
def langchain_structured_output():
    from pydantic import BaseModel

    class Days(BaseModel):
        days: int
        sure: bool

    assert chain().with_structured_output(Days, method="json_schema").invoke(ASK) == Days(days=45, sure=True)


@case
def langchain_stream():
    pieces = list(chain(stream_usage=True).stream(ASK))
    assert "".join(p.content for p in pieces) == chain().invoke(ASK).content
    assert any(p.usage_metadata for p in pieces)


@case
def langchain_batch():
    assert all(answer.content for answer in chain().batch([ASK, "How long is the warranty?"]))


@case
def langchain_async():
    async def both():
        return await chain().ainvoke(ASK), [p async for p in chain().astream(ASK)]

    whole, pieces = asyncio.run(both())
    assert whole.content == "".join(p.content for p in pieces)


@case
def langchain_runnable():
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    assert (ChatPromptTemplate.from_messages([("human", "{question}")]) | chain() | StrOutputParser()).invoke({"question": ASK})


@case
def langchain_responses_api():
    answer = chain(use_responses_api=True).invoke(ASK)
    assert answer.text and answer.usage_metadata["total_tokens"] > 0


@case
def langchain_responses_api_streamed():
    assert "".join(p.text for p in chain(use_responses_api=True).stream(ASK))


@case
def langchain_errors():
    import openai

    try:
        chain(max_retries=0).bind(temperature=9).invoke(ASK)
    except openai.BadRequestError as error:
        assert error.param == "temperature"
    else:
        raise AssertionError("it was accepted")


@case
def langchain_embeddings():
    from langchain_openai import OpenAIEmbeddings

    model = OpenAIEmbeddings(model="all-minilm-l6-v2-int8", base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
    assert len(model.embed_query("a kettle")) == 384 and len(model.embed_documents(["a", "b", "c"])) == 3


@case
def llamaindex_complete():
    assert like().complete(ASK).text


@case
def llamaindex_chat():
    from llama_index.core.llms import ChatMessage

    assert like().chat([ChatMessage(role="user", content=ASK)]).message.content


@case
def llamaindex_tool_calls():
    from llama_index.core.tools import FunctionTool

    def price(sku: str) -> str:
        """What it costs."""
        return "89 euro"

    model = like(is_function_calling_model=True)
    tool = FunctionTool.from_defaults(price)
    answer = model.chat_with_tools([tool], user_msg=ASK, allow_parallel_tool_calls=True)
    assert [call.tool_kwargs for call in model.get_tool_calls_from_response(answer)] == [{"sku": "G1"}, {"sku": "G2"}], answer


@case
def llamaindex_stream():
    from llama_index.core.llms import ChatMessage

    message = ChatMessage(role="user", content=ASK)
    assert [p for p in like().stream_chat([message])][-1].message.content == like().chat([message]).message.content


@case
def llamaindex_async():
    assert asyncio.run(like().acomplete(ASK)).text


@case
def llamaindex_embeddings():
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    model = OpenAILikeEmbedding(model_name="all-minilm-l6-v2-int8", api_base=URL, api_key=KEY)
    assert len(model.get_query_embedding("a kettle")) == 384 and len(model.get_text_embedding_batch(["a", "b"])) == 2


run()
