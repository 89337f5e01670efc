"""One run of LlamaIndex's ingestion pipeline over a folder of Markdown: document store with upserts and deletions, and the transformation cache, persisted between runs.

    python3 run_llamaindex.py FOLDER BASE_URL STATE_FOLDER BATCH
"""

import json
import resource
import sys
import time
from pathlib import Path

from llama_index.core import Document
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

folder, base_url, state, batch = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
began = time.time()
client = QdrantClient(path=str(state / "qdrant"))
pipeline = IngestionPipeline(
    transformations=[
        MarkdownNodeParser(),
        SentenceSplitter(chunk_size=180, chunk_overlap=0, include_metadata=False),
        OpenAILikeEmbedding(model_name="mock", api_base=base_url, api_key="none", embed_batch_size=batch),
    ],
    vector_store=QdrantVectorStore(client=client, collection_name="documents"),
    docstore=SimpleDocumentStore(),
    docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
)
if (state / "pipeline").exists():
    pipeline.load(str(state / "pipeline"))
documents = [Document(text=path.read_text(), id_=str(path.relative_to(folder))) for path in sorted(folder.rglob("*.md"))]
nodes = pipeline.run(documents=documents)
pipeline.persist(str(state / "pipeline"))
client.close()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": time.time() - began, "peak_rss_mb": peak, "chunks": len(nodes)}))
