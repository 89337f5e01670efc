use super::*;
use groundtone_catalog::{DataDirectory, DocumentRecord, Publication};
use groundtone_index::{CollectionSpec, MemoryIndex, Point, SparseEmbedder, VectorIndex, WordHashSparse};
use groundtone_provider::{CallLimits, EmbedFor, Embedder, Endpoint, OpenAiChat, OpenAiEmbeddings};
use groundtone_retrieval::{Mode, Settings};
use groundtone_testkit::{Reply, ScriptedServer};
use groundtone_types::{ContentHash, Span};

const LIMITS: CallLimits = CallLimits { texts: 8, tokens: 1000, parallel: 1 };
const TEXTS: [(&str, &str); 3] = [
    ("heron.md", "The Heron kettle holds 1.2 litres of water and costs 79 euro."),
    ("swift.md", "The Swift kettle boils 0.8 litres in 90 seconds and costs 64 euro."),
    ("short.md", "Thanks for reading."),
];

async fn teacher(server: &ScriptedServer, folder: &Path) -> (Teacher, DataDirectory) {
    let limit = Duration::from_secs(5);
    let endpoint = Endpoint::new(&server.base_url, None, limit, limit, limit).unwrap();
    let embedder = Arc::new(OpenAiEmbeddings::new(endpoint.clone(), "scripted", 4, 1000, LIMITS));
    let index = Arc::new(MemoryIndex::default());
    let (tenant, collection) = (Tenant::default(), Collection::new("documents@1").unwrap());
    index.ensure(&CollectionSpec { name: collection.clone(), dimensions: 4 }).await.unwrap();
    let directory = DataDirectory::open(&folder.join("data"), "test").unwrap();
    let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
    for (document, text) in TEXTS {
        let chunk = Chunk {
            document: DocumentId::new(document).unwrap(),
            ordinal: 0,
            span: Span { start: 0, end: text.len() },
            heading_path: vec![],
            title: "Kettles".into(),
            url: "u".into(),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Default::default(),
        };
        let record = DocumentRecord {
            id: chunk.document.clone(),
            source: "test".into(),
            content_hash: ContentHash::of(text.as_bytes()),
            version: None,
            settings_fingerprint: "s".into(),
            title: "Kettles".into(),
            url: "u".into(),
            bytes: 1,
            tokens: 1,
            run: uuid::Uuid::from_u128(1),
            indexed_at: 1,
            metadata: Default::default(),
            flags: Vec::new(),
        };
        catalog.publish(&tenant, &collection, &[Publication { record, points: vec![chunk.point_id()] }]).await.unwrap();
        let dense = embedder.embed(&[text.to_owned()], EmbedFor::Document).await.unwrap().remove(0);
        index
            .upsert(&tenant, &collection, vec![Point { id: chunk.point_id(), dense, sparse: WordHashSparse.document(text), chunk }])
            .await
            .unwrap();
    }
    let retriever = Retriever::new(index, embedder, Arc::new(WordHashSparse), Settings { mode: Mode::Bm25, top_k: 1, candidates: 10 });
    (Teacher { model: Arc::new(OpenAiChat::new(endpoint, "gpt-4o-mini", 4000)), retriever, catalog, tenant, collection }, directory)
}

fn settings(folder: &Path) -> TeacherSettings {
    TeacherSettings {
        out: folder.join("x.examples.jsonl"),
        questions: 2,
        chunks: None,
        concurrency: 1,
        seed: 1,
        system: "Be kind.".into(),
        overwrite: false,
    }
}

/// One good question, one with an invented number, one that another chunk answers better.
fn replies() -> Vec<Reply> {
    let heron = "{\"question\": \"How much water does the Heron hold?\", \"answer\": \"It holds 1.2 litres.\"}\n{\"question\": \"What does the Heron cost?\", \"answer\": \"It costs 97 euro.\"}\n{\"question\": \"How many seconds, boils?\", \"answer\": \"The Heron kettle holds 1.2 litres.\"}";
    let swift = "Q: How fast does the Swift boil?\nA: It boils 0.8 litres in 90 seconds.\nQ: How much water does the Heron hold?\nA: It costs 64 euro.";
    vec![Reply::Stream(vec![heron.into()]), Reply::Stream(vec![swift.into()])]
}

#[tokio::test]
async fn only_answerable_questions_that_retrieval_finds_are_kept_and_every_other_has_its_reason() {
    let server = ScriptedServer::start(replies()).await;
    let folder = tempfile::tempdir().unwrap();
    let (teacher, _directory) = teacher(&server, folder.path()).await;
    let settings = settings(folder.path());
    let report = teacher.run(&settings, &|_, _| {}).await.unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
    {
      "chunks": 3,
      "resumed": 0,
      "written": 5,
      "kept": 2,
      "dropped": {
        "a name is not in the chunk": 1,
        "a number is not in the chunk": 1,
        "retrieval does not find its chunk": 1
      },
      "passed_over": {
        "has too few words to ask about": 1
      }
    }
    "#);
    let kept = std::fs::read_to_string(&settings.out).unwrap();
    insta::assert_snapshot!(kept, @r#"
    {"id":"heron.md#0.1","question":"How much water does the Heron hold?","answer":"It holds 1.2 litres.","documents":["heron.md"],"span":{"start":0,"end":61}}
    {"id":"swift.md#0.1","question":"How fast does the Swift boil?","answer":"It boils 0.8 litres in 90 seconds.","documents":["swift.md"],"span":{"start":0,"end":66}}
    "#);
    // The teacher's reply is not asked for again, and what it wrote is the same.
    let calls = server.requests().len();
    let again = teacher.run(&settings, &|_, _| {}).await.unwrap();
    assert_eq!((again.resumed, again.kept, server.requests().len()), (3, 2, calls));
    // Cut off in the middle of a line: that chunk alone is asked about again.
    let journal = settings.out.with_extension("teacher.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, &text[..text.rfind("{\"document\":\"swift").unwrap() + 20]).unwrap();
    teacher.run(&settings, &|_, _| {}).await.unwrap();
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), text);
    assert_eq!(std::fs::read_to_string(&settings.out).unwrap(), kept);
    let other = teacher.run(&TeacherSettings { questions: 3, ..settings }, &|_, _| {}).await.unwrap_err();
    assert!(matches!(other, Error::OtherBuild { .. }), "{other}");
}

#[tokio::test]
async fn a_busy_teacher_is_asked_again_and_a_broken_one_ends_the_run() {
    let busy = Reply::Raw(503, "application/json", "{\"error\": {\"message\": \"busy\"}}".into());
    let server = ScriptedServer::start([vec![busy], replies()].concat()).await;
    let folder = tempfile::tempdir().unwrap();
    let (teacher, _directory) = teacher(&server, folder.path()).await;
    assert_eq!(teacher.run(&settings(folder.path()), &|_, _| {}).await.unwrap().kept, 2);
    let server = ScriptedServer::start([Reply::Raw(401, "application/json", "{\"error\": {\"message\": \"no key\"}}".into())]).await;
    let folder = tempfile::tempdir().unwrap();
    let (teacher, _directory) = self::teacher(&server, folder.path()).await;
    let error = teacher.run(&settings(folder.path()), &|_, _| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("the teacher gpt-4o-mini: ") && error.contains("no key"), "{error}");
}
