"""One run of LangChain's indexing API over a folder of Markdown: `index()` with a record manager, as its documentation recommends against needless work.

    python3 run_langchain.py FOLDER BASE_URL STATE_FOLDER BATCH
"""

import json
import resource
import sys
import time
from pathlib import Path

from langchain_community.indexes._sql_record_manager import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.indexing import index
from langchain_openai import OpenAIEmbeddings
from langchain_qdrant import QdrantVectorStore
from langchain_text_splitters import Language, RecursiveCharacterTextSplitter
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from endpoint import DIMENSIONS

folder, base_url, state, batch = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
began = time.time()
# Without check_embedding_ctx_length=False it downloads a tokenizer.
embeddings = OpenAIEmbeddings(model="mock", base_url=base_url, api_key="none", check_embedding_ctx_length=False, chunk_size=batch)
client = QdrantClient(path=str(state / "qdrant"))
if not client.collection_exists("documents"):
    client.create_collection("documents", vectors_config=VectorParams(size=DIMENSIONS, distance=Distance.COSINE))
store = QdrantVectorStore(client=client, collection_name="documents", embedding=embeddings)
records = SQLRecordManager("qdrant/documents", db_url=f"sqlite:///{state / 'records.sqlite'}")
records.create_schema()
splitter = RecursiveCharacterTextSplitter.from_language(Language.MARKDOWN, chunk_size=720, chunk_overlap=0)
documents = [Document(path.read_text(), metadata={"source": str(path.relative_to(folder))}) for path in sorted(folder.rglob("*.md"))]
chunks = splitter.split_documents(documents)
# Its default hash; sha256 makes ids that Qdrant refuses.
done = index(chunks, records, store, cleanup="full", source_id_key="source", batch_size=10 * batch, key_encoder="sha1")
client.close()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": time.time() - began, "peak_rss_mb": peak, "chunks": len(chunks), "report": done}))
