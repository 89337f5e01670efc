use super::*;
use crate::RowMessage;
use groundtone_answer::Assistant;
use groundtone_catalog::DataDirectory;
use groundtone_index::{CollectionSpec, MemoryIndex, Point, SparseEmbedder, VectorIndex, WordHashSparse};
use groundtone_prompt::{PromptContract, TemplateVersion};
use groundtone_provider::{CallLimits, ChatModel, EmbedFor, Embedder, Endpoint, OpenAiChat, OpenAiEmbeddings};
use groundtone_retrieval::{Gate, Mode};
use groundtone_testkit::{Reply, ScriptedServer};
use groundtone_types::{Chunk, Span};
use std::time::Duration;

const LIMITS: CallLimits = CallLimits { texts: 8, tokens: 1000, parallel: 1 };
const ABSTAIN: &str = "I don't know.";

/// Texts of a small shop; every product has a price of its own.
fn texts() -> Vec<(String, String)> {
    let mut texts = vec![
        ("returns.md".to_owned(), "You can send an order back within 45 days of delivery.".to_owned()),
        ("faq.md".to_owned(), "Orders may be sent back up to 45 days after delivery.".to_owned()),
        ("warranty.md".to_owned(), "The burr set is covered for 12 years.".to_owned()),
        ("odd.md".to_owned(), "Ünïcode {{question}} [1] stays.".to_owned()),
    ];
    let names = ["Alder", "Birch", "Cedar", "Elder", "Hazel", "Linden", "Maple", "Rowan", "Spruce", "Willow"];
    texts.extend(
        names
            .iter()
            .enumerate()
            .map(|(at, name)| (format!("products/{}.md", name.to_lowercase()), format!("The {name} grinder costs {} euro.", 61 + 7 * at))),
    );
    texts
}

/// The examples of that shop: one for each product, and some others.
fn examples() -> String {
    let mut lines: Vec<String> = texts()[4..]
        .iter()
        .map(|(document, text)| {
            let name = text.split(' ').nth(1).unwrap();
            let answer = text.replace("grinder costs", "is yours for");
            format!("{{\"question\": \"What does the {name} cost?\", \"answer\": \"{answer}\", \"documents\": [\"{document}\"], \"topic\": \"price\"}}")
        })
        .collect();
    lines.push("{\"question\": \"How long can I send an order back?\", \"answer\": \"45 days from delivery.\"}".into());
    lines.push("{nonsense".into());
    lines.push("{\"question\": \"Will you open in Paris?\", \"answer\": \"I don't know. Ring us on 45 45.\"}".into());
    lines.push("{\"question\": \"Who are you?\", \"answer\": \"A friend of coffee.\"}".into());
    lines.push(format!("{{\"question\": \"{}\", \"answer\": \"Short.\"}}", "word ".repeat(5000)));
    lines.join("\n") + "\n"
}

struct Shop {
    server: ScriptedServer,
    folder: tempfile::TempDir,
    builder: Builder,
    answerer: Answerer,
    _directory: DataDirectory,
}

/// An answerer over real sockets; the scripted model server records the bytes that it is sent.
async fn shop() -> Shop {
    gated_shop(None).await
}

async fn gated_shop(gate: Option<Gate>) -> Shop {
    let server = ScriptedServer::start([Reply::Stream(vec!["ok".into()])]).await;
    let limit = Duration::from_secs(5);
    let endpoint = Endpoint::new(&server.base_url, None, limit, limit, limit).unwrap();
    let embedder = Arc::new(OpenAiEmbeddings::new(endpoint.clone(), "scripted", 4, 1000, LIMITS));
    let index = Arc::new(MemoryIndex::default());
    let (tenant, name, collection) = (Tenant::default(), Collection::new("documents").unwrap(), Collection::new("documents@1").unwrap());
    index.ensure(&CollectionSpec { name: collection.clone(), dimensions: 4 }).await.unwrap();
    index.set_alias(&name, &collection).await.unwrap();
    for (document, text) in texts() {
        let chunk = Chunk {
            document: DocumentId::new(document).unwrap(),
            ordinal: 0,
            span: Span { start: 0, end: text.len() },
            heading_path: vec!["H".into()],
            title: "T".into(),
            url: "u".into(),
            text: text.clone(),
            page: None,
            parent: None,
            metadata: Default::default(),
        };
        let dense = embedder.embed(std::slice::from_ref(&text), EmbedFor::Document).await.unwrap().remove(0);
        let point = Point { id: chunk.point_id(), dense, sparse: WordHashSparse.document(&text), chunk };
        index.upsert(&tenant, &collection, vec![point]).await.unwrap();
    }
    let model = Arc::new(OpenAiChat::new(endpoint, "gpt-4o-mini", 4000));
    let contract = PromptContract {
        template: TemplateVersion::V1,
        system: "You answer for Acme.".into(),
        abstain: ABSTAIN.into(),
        context_tokens: 500,
        tokenizer: model.tokens().id().to_owned(),
    };
    let retriever =
        Retriever::new(index, embedder, Arc::new(WordHashSparse), Settings { mode: Mode::Hybrid, top_k: 3, candidates: 20 }).gated(gate);
    let answerer = Answerer::new(
        Assistant { name: "acme".into(), collection: name, contract, reading: Default::default(), sampling: Default::default() },
        retriever,
        model,
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("examples.jsonl"), examples()).unwrap();
    let directory = DataDirectory::open(&folder.path().join("data"), "test").unwrap();
    let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
    let builder = Builder::new(&answerer, catalog, tenant, "scripted".to_owned()).await.unwrap();
    Shop { builder, answerer, server, folder, _directory: directory }
}

impl Shop {
    fn settings(&self, out: &str, controls: Controls) -> BuildSettings {
        BuildSettings {
            source: self.folder.path().join("examples.jsonl"),
            read: ReadOptions { max_record_bytes: 100_000, ..ReadOptions::default() },
            out: Some(self.folder.path().join(out)),
            overwrite: false,
            limit: None,
            controls,
            seed: 7,
            concurrency: 3,
        }
    }

    async fn build(&self, out: &str, controls: Controls) -> (BuildReport, Vec<Row>, Vec<RowRecord>) {
        let settings = self.settings(out, controls);
        let report = self.builder.run(&settings, &|_, _| {}).await.unwrap();
        let data = settings.out.unwrap();
        let rows = std::fs::read_to_string(&data).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let entries = crate::read_entries(&DatasetPaths::of(&data).rows).unwrap();
        let records = entries.filter_map(|entry| if let Entry::Row(row) = entry.unwrap() { Some(*row) } else { None }).collect();
        let manifest = Manifest::read(&data).unwrap().unwrap();
        manifest.verify(&data).unwrap();
        assert_eq!(manifest.counts, report.counts);
        (report, rows, records)
    }
}

#[tokio::test]
async fn a_served_row_without_its_answer_is_byte_for_byte_what_serving_sends() {
    let shop = shop().await;
    let (report, rows, records) = shop.build("train.jsonl", Controls::default()).await;
    // Records in and lines of the rows file add up; the question that does not fit is named.
    let counts = &report.counts;
    assert_eq!((counts.rows, counts.dropped, counts.rejected, counts.with_oracle, counts.missed), (13, 1, 1, 11, 1), "{counts:?}");
    assert!(report.problems.iter().any(|problem| matches!(problem, Entry::Dropped { line: 15, .. })), "{:?}", report.problems);
    for (mut row, record) in rows.into_iter().zip(records) {
        row.messages.pop();
        let messages = vec![PromptMessage::new(Role::User, &record.question)];
        let asked = Question::new(Tenant::default(), messages);
        shop.answerer.answer(asked).await.unwrap();
        let sent = shop.server.requests().pop().unwrap();
        // The prompt's own replies are read and not learned.
        let replies = |message: &RowMessage| message.message.role == Role::Assistant;
        assert!(row.messages.iter().all(|message| message.weight == replies(message).then_some(0)) && row.messages.iter().any(replies));
        let read: Vec<PromptMessage> = row.messages.into_iter().map(|message| message.message).collect();
        assert_eq!(serde_json::to_string(&sent["messages"]).unwrap(), serde_json::to_string(&read).unwrap());
        assert_eq!(record.snippets.len(), 3, "{record:?}");
    }
}

#[tokio::test]
async fn every_kind_of_row_shows_what_its_name_says() {
    let shop = shop().await;
    let controls =
        Controls { oracle_share: Some(0.5), no_answer_share: 0.3, plain_share: 0.2, order: Order::Shuffled, ..Controls::default() };
    let (report, rows, records) = shop.build("mixed.jsonl", controls).await;
    let all = texts();
    let price = |record: &RowRecord| {
        let text = record.documents.first().and_then(|document| all.iter().find(|(name, _)| name == document)).map(|(_, text)| text);
        text.map(|text| text.split(' ').find(|word| word.parse::<u32>().is_ok()).unwrap().to_owned())
    };
    for (row, record) in rows.iter().zip(&records) {
        let (answer, prompt) = (&row.messages.last().unwrap().message.content, &row.messages[row.messages.len() - 2].message.content);
        let shows = price(record).map(|price| prompt.contains(&price));
        match record.kind {
            RowKind::Oracle => {
                assert!(!record.oracle.is_empty() && shows != Some(false), "{record:?}");
                assert!(!record.cited.is_empty() && (record.cited == record.oracle || record.documents.is_empty()), "{answer}");
            }
            RowKind::NoAnswer => {
                assert!(answer.starts_with(ABSTAIN) && shows != Some(true) && !record.snippets.is_empty() && record.oracle.is_empty());
            }
            RowKind::Distractors => assert!(answer != ABSTAIN && shows != Some(true) && record.cited.is_empty(), "{record:?}"),
            RowKind::Plain => assert!(prompt == &record.question && row.messages.len() == 3 && record.snippets.is_empty()),
            // Nobody knows which chunk holds "a friend of coffee".
            RowKind::Served => assert!(record.changed.as_ref().is_some_and(|why| why.contains("no chunk is known")), "{record:?}"),
        }
        // The number in the record is the number in the prompt.
        record.snippets.iter().for_each(|snippet| assert!(prompt.contains(&format!("[{}] T", snippet.number)), "{prompt}"));
    }
    for kind in ["oracle", "no_answer", "distractors", "plain"] {
        assert!(report.counts.kinds.contains_key(kind), "{:?}", report.counts.kinds);
    }
    // An example that abstains itself keeps its words, and is none of the others.
    let paris = records.iter().position(|record| record.question.contains("Paris")).unwrap();
    assert_eq!((records[paris].kind, records[paris].cited.len()), (RowKind::NoAnswer, 0));
    assert!(rows[paris].messages.last().unwrap().message.content.ends_with("Ring us on 45 45."));
    // The returns fact stands in two documents: a row without it shows neither.
    let only = Controls { no_answer_share: 1.0, ..Controls::default() };
    let (_, rows, records) = shop.build("none.jsonl", only).await;
    let at = records.iter().position(|record| record.question.contains("order back")).unwrap();
    assert_eq!(records[at].kind, RowKind::NoAnswer);
    assert!(!rows[at].messages.iter().rev().nth(1).unwrap().message.content.contains("45 days"));
}

#[tokio::test]
async fn served_rows_that_miss_the_answer_stay_abstain_or_go() {
    let shop = shop().await;
    let missed = |missed| Controls { missed, ..Controls::default() };
    let (kept, ..) = shop.build("keep.jsonl", missed(Missed::Keep)).await;
    let (gone, ..) = shop.build("drop.jsonl", missed(Missed::Drop)).await;
    assert_eq!((kept.counts.rows, kept.counts.missed, gone.counts.rows, gone.counts.missed, gone.counts.dropped), (13, 1, 12, 0, 2));
    let (abstained, ..) = shop.build("abstain.jsonl", missed(Missed::Abstain)).await;
    assert_eq!(abstained.counts.missed, 0);
    assert_eq!(abstained.counts.rows + abstained.counts.dropped + abstained.counts.rejected, 15);
}

#[tokio::test]
async fn a_question_that_serving_would_not_ask_a_model_is_a_row_that_says_so() {
    // Only a question whose words the snippets hold is answered.
    let gate = Gate { embedder: "scripted".into(), threshold: 0.5, intercept: -6.0, weights: [0.0, 0.0, 0.0, 10.0] };
    let shop = gated_shop(Some(gate)).await;
    let (report, rows, records) = shop.build("gated.jsonl", Controls::default()).await;
    let gated = records.iter().filter(|record| record.gated).count();
    assert!(gated > 0 && gated < records.len() && report.counts.gated == gated as u64, "{:?}", report.counts);
    for (row, record) in rows.iter().zip(&records) {
        let asked = Question::new(Tenant::default(), vec![PromptMessage::new(Role::User, &record.question)]);
        let before = shop.server.requests().len();
        let answer = shop.answerer.answer(asked).await.unwrap();
        let closed = answer.summary.abstained_because == Some(groundtone_answer::AbstainReason::NoEvidence);
        assert_eq!(record.gated, closed, "{record:?}");
        let chats = shop.server.requests()[before..].iter().filter(|request| request.get("messages").is_some()).count();
        assert_eq!(chats, usize::from(!closed));
        if closed && record.oracle.is_empty() {
            assert!(
                record.kind == RowKind::NoAnswer && row.messages.last().unwrap().message.content.starts_with(&answer.text),
                "{record:?}"
            );
        }
    }
}

#[tokio::test]
async fn quotes_stand_before_the_answer_and_in_the_source() {
    let shop = shop().await;
    let controls = Controls { style: AnswerStyle::QuoteThenAnswer, ..Controls::default() };
    let (_, rows, _) = shop.build("quotes.jsonl", controls).await;
    insta::assert_snapshot!(rows[0].messages.last().unwrap().message.content, @r#"
    "The Alder grinder costs 61 euro." [1]

    The Alder is yours for 61 euro [1].
    "#);
}

#[tokio::test]
async fn concurrency_changes_nothing_and_the_seed_does() {
    let shop = shop().await;
    let controls = Controls { oracle_share: Some(0.6), no_answer_share: 0.3, order: Order::Shuffled, ..Controls::default() };
    let mut seen = Vec::new();
    for (name, concurrency, seed) in [("a.jsonl", 1, 7), ("b.jsonl", 8, 7), ("c.jsonl", 8, 8)] {
        let settings = BuildSettings { concurrency, seed, ..shop.settings(name, controls.clone()) };
        seen.push(shop.builder.run(&settings, &|_, _| {}).await.unwrap().sha256.unwrap());
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

/// Files of a dataset as bytes.
fn bytes(folder: &Path, name: &str) -> [Vec<u8>; 3] {
    let paths = DatasetPaths::of(&folder.join(name));
    [paths.data, paths.rows, paths.manifest].map(|path| std::fs::read(path).unwrap())
}

#[tokio::test]
async fn a_build_that_is_cut_off_anywhere_ends_with_the_same_bytes() {
    let shop = shop().await;
    let controls = Controls { oracle_share: Some(0.6), no_answer_share: 0.3, order: Order::Shuffled, ..Controls::default() };
    let folder = shop.folder.path();
    shop.builder.run(&shop.settings("out.jsonl", controls.clone()), &|_, _| {}).await.unwrap();
    let whole = bytes(folder, "out.jsonl");
    // As kill -9 leaves it: both files cut at any byte, and the state still there.
    let state = {
        let settings = BuildSettings { limit: None, ..shop.settings("out.jsonl", controls.clone()) };
        let source = SourceRecord::of(&settings.source, &settings.read).unwrap();
        let build = shop.builder.record(&settings).unwrap();
        serde_json::json!({"examples": source, "build": build, "limit": null}).to_string()
    };
    let mut rng = SplitMix64::new(1, 1);
    for round in 0..25 {
        let cut = |bytes: &[u8], rng: &mut SplitMix64| bytes[..(rng.next() % (bytes.len() as u64 + 1)) as usize].to_vec();
        for name in ["out.jsonl", "out.rows.jsonl", "out.manifest.json"] {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("out.jsonl.part"), cut(&whole[0], &mut rng)).unwrap();
        std::fs::write(folder.join("out.rows.jsonl.part"), cut(&whole[1], &mut rng)).unwrap();
        std::fs::write(folder.join("out.build.json"), &state).unwrap();
        shop.builder.run(&shop.settings("out.jsonl", controls.clone()), &|_, _| {}).await.unwrap();
        assert!(bytes(folder, "out.jsonl") == whole, "round {round}");
    }
    // Cut off between its last two steps, too: named, but without a manifest.
    std::fs::remove_file(folder.join("out.manifest.json")).unwrap();
    std::fs::write(folder.join("out.build.json"), &state).unwrap();
    let report = shop.builder.run(&shop.settings("out.jsonl", controls.clone()), &|_, _| {}).await.unwrap();
    assert!(report.resumed == 15 && bytes(folder, "out.jsonl") == whole);
    // Finished is finished, and a build with another seed does not go on with this one.
    let again = shop.builder.run(&shop.settings("out.jsonl", controls.clone()), &|_, _| {}).await.unwrap_err();
    assert!(matches!(again, Error::Exists { .. }), "{again}");
    std::fs::write(folder.join("out.build.json"), &state).unwrap();
    let other = BuildSettings { seed: 8, ..shop.settings("out.jsonl", controls) };
    let refused = shop.builder.run(&other, &|_, _| {}).await.unwrap_err().to_string();
    assert!(refused.ends_with("was begun with another build.seed"), "{refused}");
    assert!(shop.builder.run(&BuildSettings { overwrite: true, ..other }, &|_, _| {}).await.is_ok());
}

#[tokio::test]
async fn a_dry_run_counts_and_writes_nothing() {
    let shop = shop().await;
    let settings = BuildSettings { out: None, limit: Some(3), ..shop.settings("x.jsonl", Controls::default()) };
    let report = shop.builder.run(&settings, &|_, _| {}).await.unwrap();
    assert_eq!((report.counts.rows, report.out, report.sha256), (3, None, None));
    assert!(!shop.folder.path().join("x.jsonl.part").exists());
}
