//! Answers over the exact index and a scripted model server: the gate, follow-ups, citations and links, and that a stream says what a whole answer says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use async_trait::async_trait;
use futures::StreamExt;
use groundtone_answer::{
    AbstainReason, Answer, AnswerEvent, Answerer, Assistant, Ended, Ending, Live, Question, Semantics, Variant, Watch,
};
use groundtone_index::{CollectionSpec, MemoryIndex, Point, SparseEmbedder, VectorIndex, WordHashSparse};
use groundtone_prompt::{
    CitationPolicy, CitationStatus, CountTokens, LinkRule, OpenAiTokens, PromptContract, PromptMessage, ReadingRules, Role, TemplateVersion,
};
use groundtone_provider::{CallLimits, ChatExtras, ChatModel, EmbedFor, Embedder, Endpoint, Error as ProviderError, OpenAiChat};
use groundtone_retrieval::{Basis, CondenseLimits, Gate, Mode, Retriever, Settings};
use groundtone_testkit::{Reply, ScriptedServer};
use groundtone_types::{Chunk, Collection, DocumentId, Span, Tenant};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const ABSTAIN: &str = "I don't have that in our guides.";
const POLICIES: [CitationPolicy; 4] = [CitationPolicy::Report, CitationPolicy::Repair, CitationPolicy::Remove, CitationPolicy::Refuse];
const TEXTS: [(&str, &str, &str); 4] = [
    ("documents", "returns", "Grinders can be returned within 45 days of delivery."),
    ("documents", "postage", "Postage to Switzerland costs 9 euro. Postage to Norway costs 12 euro."),
    ("documents", "hours", "The workshop in Graz opens at nine on Saturdays."),
    ("uploads", "kettles", "Kettles can be returned within 10 days of delivery."),
];

/// How often each letter is there.
struct Letters;

#[async_trait]
impl Embedder for Letters {
    fn id(&self) -> &str {
        "letters"
    }
    fn dimensions(&self) -> usize {
        26
    }
    fn max_tokens(&self) -> usize {
        1_000
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        OpenAiTokens::for_model("gpt-4o")
    }
    fn limits(&self) -> CallLimits {
        CallLimits { texts: 8, tokens: 1_000, parallel: 1 }
    }
    async fn embed(&self, texts: &[String], _: EmbedFor) -> Result<Vec<Vec<f32>>, ProviderError> {
        let letters = |text: &String| {
            let mut vector = vec![0.01f32; 26];
            text.bytes().filter(u8::is_ascii_alphabetic).for_each(|b| vector[usize::from(b.to_ascii_lowercase() - b'a')] += 1.0);
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.into_iter().map(|x| x / length).collect()
        };
        Ok(texts.iter().map(letters).collect())
    }
}

struct Shop {
    answerer: Answerer,
    upstream: ScriptedServer,
}

/// A shop whose model says `pieces`, with a gate that lets questions through whose words the snippets hold.
async fn shop(pieces: &[&str], reading: ReadingRules) -> Shop {
    let upstream = ScriptedServer::start([Reply::Stream(pieces.iter().map(|piece| (*piece).to_owned()).collect())]).await;
    let index = Arc::new(MemoryIndex::default());
    for (collection, document, text) in TEXTS {
        let collection = Collection::new(collection).unwrap();
        index.ensure(&CollectionSpec { name: collection.clone(), dimensions: 26 }).await.unwrap();
        let chunk = Chunk {
            document: DocumentId::new(document).unwrap(),
            ordinal: 0,
            span: Span { start: 0, end: text.len() },
            heading_path: vec![],
            title: document.into(),
            url: format!("https://shop.test/{document}"),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Default::default(),
        };
        let dense = Letters.embed(&[text.to_owned()], EmbedFor::Document).await.unwrap().remove(0);
        let point = Point { id: chunk.point_id(), dense, sparse: WordHashSparse.document(text), chunk };
        index.upsert(&Tenant::default(), &collection, vec![point]).await.unwrap();
    }
    let gate = Gate { embedder: "letters".into(), threshold: 0.5, intercept: -4.0, weights: [0.0, 0.0, 0.0, 10.0] };
    let settings = Settings { mode: Mode::Hybrid, top_k: 2, candidates: 10 };
    let retriever = Retriever::new(index, Arc::new(Letters), Arc::new(WordHashSparse), settings).gated(Some(gate));
    let limit = Duration::from_secs(5);
    let model = Arc::new(OpenAiChat::new(Endpoint::new(&upstream.base_url, None, limit, limit, limit).unwrap(), "gpt-4o-mini", 4000));
    let contract = PromptContract {
        template: TemplateVersion::V1,
        system: "You answer for a shop.".into(),
        abstain: ABSTAIN.into(),
        context_tokens: 500,
        tokenizer: model.tokens().id().to_owned(),
    };
    let collection = Collection::new("documents").unwrap();
    let assistant = Assistant { name: "shop".into(), collection, contract, reading, sampling: Default::default() };
    Shop { answerer: Answerer::new(assistant, retriever, model), upstream }
}

fn asks(turns: &[&str]) -> Question {
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    Question::new(Tenant::default(), roles.zip(turns).map(|(role, text)| PromptMessage::new(role, *text)).collect())
}

fn with(question: Question, parameters: &Value) -> Question {
    let extras = ChatExtras { parameters: parameters.as_object().cloned().unwrap(), ..ChatExtras::default() };
    Question { extras: Arc::new(extras), ..question }
}

fn policy(policy: CitationPolicy) -> ReadingRules {
    ReadingRules { policy, links: LinkRule::Known(vec!["good.test".into()]), semantic: false }
}

async fn says(pieces: &[&str], rules: ReadingRules, question: Question) -> Answer {
    shop(pieces, rules).await.answerer.answer(question).await.unwrap()
}

const RETURNS: &str = "How many days can grinders be returned?";

#[tokio::test]
async fn too_little_evidence_is_answered_without_a_model() {
    let shop = shop(&["A kangaroo."], policy(CitationPolicy::Report)).await;
    let off_topic = || asks(&["Who won the football championship yesterday?"]);
    let answer = shop.answerer.answer(off_topic()).await.unwrap();
    let evidence = answer.summary.evidence.unwrap();
    assert_eq!((answer.text.as_str(), answer.summary.abstained_because), (ABSTAIN, Some(AbstainReason::NoEvidence)));
    assert!(answer.summary.abstained && evidence.score < evidence.threshold && evidence.threshold == 0.5, "{evidence:?}");
    assert_eq!((answer.summary.usage.unwrap().total(), answer.summary.citations.len()), (0, 0));
    assert!(shop.upstream.requests().is_empty(), "the model was asked");
    // Tools may know it, a format of the client's own has no abstain text, and a greeting asks for nothing.
    for parameters in [json!({"tools": [{"type": "function"}]}), json!({"response_format": {"type": "json_object"}})] {
        assert_eq!(shop.answerer.answer(with(off_topic(), &parameters)).await.unwrap().summary.evidence, None);
    }
    assert!(!shop.answerer.answer(asks(&["Thanks, hello!"])).await.unwrap().summary.abstained);
    assert_eq!(shop.upstream.requests().len(), 3);
    let answer = shop.answerer.answer(asks(&[RETURNS])).await.unwrap();
    assert!(answer.summary.evidence.is_some_and(|evidence| evidence.score >= 0.5), "{:?}", answer.summary.evidence);
}

#[tokio::test]
async fn a_follow_up_is_searched_for_with_what_it_leans_on() {
    let answer = says(
        &["12 euro [1]."],
        policy(CitationPolicy::Report),
        asks(&["What does postage to Switzerland cost?", "9 euro.", "And to Norway?"]),
    )
    .await;
    let query = answer.summary.rewritten_query.unwrap();
    assert!(query.contains("Norway") && query.contains("postage") && !query.contains("Switzerland"), "{query}");
    assert_eq!(
        (answer.summary.sources[0].chunk.document.as_str(), answer.summary.citations[0].status),
        ("postage", CitationStatus::Supported)
    );
    assert_eq!(says(&["x"], policy(CitationPolicy::Report), asks(&[RETURNS])).await.summary.rewritten_query, None);
}

#[tokio::test]
async fn the_best_of_several_collections_is_evidence_enough() {
    let collections = ["uploads", "nowhere"].map(|name| Collection::new(name).unwrap()).to_vec();
    let question = Question { collections, most_snippets: Some(1), ..asks(&["How many days can kettles be returned?"]) };
    let answer = says(&["10 days [1]."], policy(CitationPolicy::Report), question).await;
    assert_eq!((answer.summary.sources.len(), answer.summary.citations[0].document.as_str()), (1, "kettles"));
    let nowhere = Question { collections: vec![Collection::new("nowhere").unwrap()], ..asks(&[RETURNS]) };
    let answer = says(&["x"], policy(CitationPolicy::Report), nowhere).await;
    assert_eq!(answer.summary.abstained_because, Some(AbstainReason::NoEvidence));
}

#[tokio::test]
async fn what_becomes_of_an_unsupported_citation_is_the_policys_choice() {
    let wrong = ["Grinders can be ", "returned within 60 days", " [1]. They can be returned within 45 days [1]", " [9]."];
    let mut shown = Vec::new();
    for rule in POLICIES {
        let answer = says(&wrong, policy(rule), asks(&[RETURNS])).await;
        let summary = &answer.summary;
        let statuses: Vec<String> = summary.citations.iter().map(|cited| format!("{} {:?}", cited.number, cited.status)).collect();
        shown.push(format!(
            "{rule:?}: {} | {} | removed {} unresolved {:?} {:?}",
            answer.text,
            statuses.join(", "),
            summary.removed_citations.len(),
            summary.unresolved_markers,
            summary.abstained_because
        ));
    }
    insta::assert_snapshot!(shown.join("\n"), @r"
    Report: Grinders can be returned within 60 days [1]. They can be returned within 45 days [1] [9]. | 1 Unsupported, 1 Supported | removed 0 unresolved [9] None
    Repair: Grinders can be returned within 60 days. They can be returned within 45 days [1]. | 1 Supported | removed 1 unresolved [9] None
    Remove: Grinders can be returned within 60 days. They can be returned within 45 days [1]. | 1 Supported | removed 1 unresolved [9] None
    Refuse: I don't have that in our guides. |  | removed 1 unresolved [9] Some(Citations)
    ");
    // With the model's own abstention there is nothing to refuse, and a sound answer passes.
    let answer = says(&[ABSTAIN], policy(CitationPolicy::Refuse), asks(&[RETURNS])).await;
    assert_eq!(answer.summary.abstained_because, Some(AbstainReason::Model));
    let answer = says(&["Within 45 days ", "[1]."], policy(CitationPolicy::Refuse), asks(&[RETURNS])).await;
    assert_eq!((answer.text.as_str(), answer.summary.abstained), ("Within 45 days [1].", false));
}

/// Letters that come after everybody has given up.
struct Late;

#[async_trait]
impl Embedder for Late {
    fn id(&self) -> &str {
        "late"
    }
    fn dimensions(&self) -> usize {
        26
    }
    fn max_tokens(&self) -> usize {
        1_000
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        Letters.tokens()
    }
    fn limits(&self) -> CallLimits {
        Letters.limits()
    }
    async fn embed(&self, texts: &[String], purpose: EmbedFor) -> Result<Vec<Vec<f32>>, ProviderError> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Letters.embed(texts, purpose).await
    }
}

fn semantics(embedder: Arc<dyn Embedder>, bound: f32) -> Semantics {
    Semantics { embedder, bound, timeout: Duration::from_millis(200) }
}

#[tokio::test]
async fn the_embedder_is_asked_where_only_the_wording_is_in_doubt() {
    // Hardly a word of the source: one with its letters, one with others. A wrong number is wrong in any wording.
    let said = [
        "Hand in the worn grinding device, once delivered [1]. Pumpkins quickly jump upward [1]. ",
        "Hand in the worn grinding device before 60 dawns [1].",
    ];
    let mut kept = Vec::new();
    let embedders: [(&str, Arc<dyn Embedder>, f32); 4] = [
        ("near", Arc::new(Letters), 0.8),
        ("anything", Arc::new(Letters), -1.0),
        ("nothing", Arc::new(Letters), 1.01),
        ("late", Arc::new(Late), -1.0),
    ];
    for (name, embedder, bound) in embedders {
        let rules = ReadingRules { semantic: true, ..policy(CitationPolicy::Remove) };
        let answerer = shop(&said, rules).await;
        let answer = answerer.answerer.comparing(semantics(embedder, bound)).answer(asks(&[RETURNS])).await.unwrap();
        let marked = ["delivered [1].", "upward [1].", "dawns [1]."].map(|text| answer.text.contains(text));
        let supported = answer.summary.citations.iter().all(|cited| cited.status == CitationStatus::Supported);
        kept.push(format!("{name}: {marked:?} {supported}"));
    }
    assert_eq!(
        kept,
        [
            "near: [true, false, false] true",
            "anything: [true, true, false] true",
            "nothing: [false, false, false] true",
            "late: [false, false, false] true"
        ]
    );
    // Nobody is asked without the embedder, and none of it is held back.
    let rules = ReadingRules { semantic: true, ..policy(CitationPolicy::Report) };
    assert_eq!(says(&said, rules, asks(&[RETURNS])).await.text, said.concat());
}

#[tokio::test]
async fn links_to_unknown_hosts_lose_their_address_unless_the_client_wants_a_format() {
    let text = "See [our page](https://good.test/a) and ![x](https://evil.test/?q=secret), 45 days.";
    let answer = says(&[text], policy(CitationPolicy::Report), asks(&[RETURNS])).await;
    assert_eq!((answer.text.as_str(), answer.summary.links_removed), ("See [our page](https://good.test/a) and x, 45 days.", 1));
    let tools = json!({"tools": [{"type": "function"}]});
    assert_eq!(says(&[text], policy(CitationPolicy::Remove), with(asks(&[RETURNS]), &tools)).await.summary.links_removed, 1);
    let formatted = json!({"response_format": {"type": "json_schema"}});
    assert_eq!(says(&[text], policy(CitationPolicy::Refuse), with(asks(&[RETURNS]), &formatted)).await.text, text);
}

/// A shop whose own model is ill, with a variant without documents and one that is well.
async fn shop_of_variants(replies: Vec<Reply>) -> (Shop, ScriptedServer) {
    let (shop, other) = (shop(&["own [1]"], policy(CitationPolicy::Report)).await, ScriptedServer::start(replies).await);
    let limit = Duration::from_secs(5);
    let model = |server: &ScriptedServer| -> Arc<dyn ChatModel> {
        Arc::new(OpenAiChat::new(Endpoint::new(&server.base_url, None, limit, limit, limit).unwrap(), "other", 4000))
    };
    let own = shop.answerer.assistant().contract.clone();
    let variant = |name: &str, retrieval, model| {
        let contract = PromptContract { system: format!("You are {name}."), ..own.clone() };
        Variant { name: name.into(), retrieval, contract, model, sampling: Default::default() }
    };
    let variants = vec![variant("ill", true, model(&other)), variant("prompted", false, model(&shop.upstream))];
    (Shop { answerer: shop.answerer.with_variants(variants), upstream: shop.upstream }, other)
}

#[tokio::test]
async fn a_variant_answers_with_its_own_prompt_and_another_one_covers_for_it() {
    let refused = Reply::Raw(400, "application/json", json!({"error": {"message": "no"}}).to_string());
    let (shop, ill) = shop_of_variants(vec![Reply::Raw(500, "text/plain", "broken".into()), refused]).await;
    let (sink, mut shadows) = tokio::sync::mpsc::unbounded_channel();
    let told: Arc<Told> = Arc::default();
    let answerer = shop.answerer.with_shadows(1, Arc::new(move |answer| sink.send(answer).unwrap())).watched_by(told.clone());
    let pinned = |name: &str| Question { variant: Some(name.into()), ..asks(&[RETURNS]) };
    let prompted = answerer.answer(pinned("prompted")).await.unwrap();
    assert_eq!((prompted.summary.variant.as_str(), prompted.summary.sources.len(), prompted.summary.evidence), ("prompted", 0, None));
    assert_eq!(
        shop.upstream.requests().pop().unwrap()["messages"],
        json!([{"role": "system", "content": "You are prompted."}, {"role": "user", "content": RETURNS}])
    );
    assert_ne!(prompted.summary.prompt_fingerprint, answerer.answer(pinned("rag")).await.unwrap().summary.prompt_fingerprint);
    assert!(answerer.answer(pinned("nobody")).await.unwrap_err().to_string().ends_with("there are rag, ill, prompted"));
    let live = Live { variant: "ill".into(), fallbacks: vec!["rag".into()], shadow: Some("prompted".into()), ..Live::default() };
    assert!(answerer.switch(Live { variant: "nobody".into(), ..live.clone() }).is_err() && answerer.live().variant == "rag");
    answerer.switch(live).unwrap();
    let covered = answerer.answer(asks(&[RETURNS])).await.unwrap();
    assert_eq!((covered.summary.variant.as_str(), covered.summary.fell_back_from.as_deref()), ("rag", Some("ill")));
    let shadow = shadows.recv().await.unwrap();
    assert_eq!((shadow.variant.as_str(), shadow.question.as_str()), ("prompted", RETURNS));
    assert_eq!(shadow.answer.unwrap().text, "own [1]");
    // A request that is wrong is wrong for all.
    answerer.answer(asks(&[RETURNS])).await.unwrap_err();
    assert_eq!(ill.requests().len(), 2);
    // A client that leaves, before or after the first piece, is told of once; what nobody was meant to see is not.
    drop(answerer.stream(pinned("rag")).await.unwrap());
    let mut events = answerer.stream(pinned("rag")).await.unwrap();
    while events.next().await.is_some() {}
    answerer.unwatched().answer(pinned("rag")).await.unwrap();
    let told = told.0.lock().unwrap().clone();
    let expected = ["prompted: own [1]", "rag: own [1]", "nobody failed", "rag: own [1]", "ill failed", "rag was left", "rag: own [1]"];
    assert_eq!(told, expected);
}

/// How answers ended, one line each.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Watch for Told {
    fn ended(&self, ended: &Ended<'_>) {
        let line = match ended.ending {
            Ending::Answered(text, summary) => format!("{}: {text}", summary.variant),
            Ending::Failed(_) => format!("{} failed", ended.decision.primary),
            Ending::Left => format!("{} was left", ended.decision.primary),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test]
async fn a_model_is_asked_once_what_a_follow_up_means_where_the_rules_are_unsure() {
    let shop = shop(&["What does postage to Norway cost?"], policy(CitationPolicy::Report)).await;
    let answerer = shop.answerer.condensing(CondenseLimits::default());
    let unsure = asks(&["What does postage to Switzerland cost?", "9 euro.", "Does it cover heavy parcels towards Norway?"]);
    let found = answerer.find(&unsure).await.unwrap();
    let asked = shop.upstream.requests();
    assert_eq!((asked.len(), found.resolved.basis), (1, Basis::Model));
    assert_eq!((found.resolved.question.as_str(), &asked[0]["temperature"]), ("What does postage to Norway cost?", &json!(0.0)));
    assert!(asked[0]["messages"][1]["content"].as_str().unwrap().ends_with("Last question: Does it cover heavy parcels towards Norway?"));
    answerer.find(&asks(&[RETURNS])).await.unwrap();
    assert_eq!(shop.upstream.requests().len(), 1, "a question that stands for itself asks no model");
}

/// Everything that a client is told of an answer, but for the times.
fn told(text: &str, summary: &groundtone_answer::Summary) -> Value {
    let mut summary = serde_json::to_value(summary).unwrap();
    summary.as_object_mut().unwrap().retain(|key, _| !["timings", "usage"].contains(&key.as_str()));
    json!({"text": text, "summary": summary})
}

/// A text in pieces of these lengths, in characters.
fn cut(text: &str, lengths: &[usize]) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let (mut pieces, mut at, mut lengths) = (Vec::new(), 0, lengths.iter().cycle());
    while at < characters.len() {
        let end = (at + lengths.next().copied().unwrap_or(1).max(1)).min(characters.len());
        pieces.push(characters[at..end].iter().collect());
        at = end;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_stream_says_what_a_whole_answer_says_however_it_is_cut(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "Within 45 days", "within 60 days", " [1]", " [2]", " [9]", "[1, 2]", ". ", "\n\n", "`[1]`", "```\n", "[a](https://evil.test/x)",
            "![p](https://good.test)", "<img src=x>", "Hand in the worn grinding device, once delivered", "Pumpkins quickly jump upward", "Postage to Norway costs 12 euro", "Österreich 🚲", " [", "(", "!", ABSTAIN,
        ]), 1..10),
        lengths in proptest::collection::vec(1usize..9, 1..5),
        rule in proptest::sample::select(POLICIES.to_vec()),
        semantic in any::<bool>(),
    ) {
        let text = parts.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rules = ReadingRules { semantic, ..policy(rule) };
            let comparing = |shop: &Shop| shop.answerer.clone().comparing(semantics(Arc::new(Letters), 0.8));
            let alone = shop(&[&text], rules.clone()).await;
            let whole = comparing(&alone).answer(asks(&[RETURNS])).await.unwrap();
            let pieces = cut(&text, &lengths);
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let shop = shop(&pieces, rules).await;
            let mut events = comparing(&shop).stream(asks(&[RETURNS])).await.unwrap();
            let (mut streamed, mut ends) = (String::new(), Vec::new());
            while let Some(event) = events.next().await {
                match event.unwrap() {
                    AnswerEvent::Delta(delta) => {
                        assert!(!delta.is_empty() && ends.is_empty());
                        streamed.push_str(&delta);
                    }
                    AnswerEvent::Beside(_) => {}
                    AnswerEvent::Done(summary) => ends.push(summary),
                }
            }
            assert_eq!(ends.len(), 1);
            assert_eq!(told(&streamed, &ends[0]), told(&whole.text, &whole.summary));
            // Every number that is shown as a citation is a source of the prompt.
            for cited in &whole.summary.citations {
                let source = &whole.summary.sources[cited.number - 1];
                assert_eq!(source.chunk.document.as_str(), cited.document);
                assert!(cited.start < cited.end && cited.end <= whole.text.chars().count());
            }
        });
    }
}
