//! Examples: question and answer in, training rows out.
//!
//! A row's messages come from [`Answerer::prompt`], the path that serving takes, so the bytes a model is trained on are the bytes it is served. So far this room reads
//! examples and makes rows; the builder's controls, validation, analysis and splits are issue 5. It never renders a prompt itself.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

use groundtone_answer::{Answerer, Question};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use std::io::BufRead;

/// A question and how it should be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Its name in the file.
    pub id: String,
    /// What a customer asks.
    pub question: String,
    /// The right answer, in the brand's voice.
    pub answer: String,
    /// Documents that hold the answer; empty where none does.
    #[serde(default)]
    pub documents: Vec<String>,
}

/// A line that is no example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// What a file of examples holds. Examples, bad lines and blank lines add up to its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// The good ones.
    pub examples: Vec<Example>,
    /// The others.
    pub bad: Vec<BadLine>,
}

/// Reads JSONL, one example a line. A bad line costs only itself; an error is one of reading.
pub fn read_examples(source: impl BufRead) -> std::io::Result<Examples> {
    let mut found = Examples::default();
    for (at, line) in source.split(b'\n').enumerate() {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let example = serde_json::from_slice::<Example>(&line).map_err(|error| error.to_string());
        let example = example.and_then(|example| match (example.question.trim(), example.answer.trim()) {
            ("", _) => Err("the question is empty".to_owned()),
            (_, "") => Err("the answer is empty".to_owned()),
            _ => Ok(example),
        });
        match example {
            Ok(example) => found.examples.push(example),
            Err(reason) => found.bad.push(BadLine { line: at + 1, reason }),
        }
    }
    Ok(found)
}

/// A training row in OpenAI's supervised format: the last message is the answer to learn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What the model reads, and then what it should write.
    pub messages: Vec<PromptMessage>,
}

/// Makes the row of an example: retrieved and rendered as serving would for this question, with the example's answer at the end.
pub async fn row(answerer: &Answerer, tenant: &Tenant, example: &Example) -> Result<Row, groundtone_answer::Error> {
    let question = Question::new(tenant.clone(), vec![PromptMessage::new(Role::User, &example.question)]);
    let mut messages = answerer.prompt(&question).await?.messages;
    messages.push(PromptMessage::new(Role::Assistant, &example.answer));
    Ok(Row { messages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_answer::Assistant;
    use groundtone_index::{CollectionSpec, MemoryIndex, Point, SparseEmbedder, VectorIndex, WordHashSparse};
    use groundtone_prompt::{PromptContract, TemplateVersion};
    use groundtone_provider::{CallLimits, ChatModel, EmbedFor, Embedder, Endpoint, OpenAiChat, OpenAiEmbeddings};
    use groundtone_retrieval::{Mode, Retriever, Settings};
    use groundtone_testkit::{Reply, ScriptedServer};
    use groundtone_types::{Chunk, Collection, DocumentId, Span};
    use std::sync::Arc;
    use std::time::Duration;

    const LIMITS: CallLimits = CallLimits { texts: 8, tokens: 1000, parallel: 1 };

    #[test]
    fn every_line_is_an_example_or_a_reason() {
        let text =
            "{\"id\":\"a\",\"question\":\"q\",\"answer\":\"a\"}\n\n{nonsense\n{\"id\":\"b\",\"question\":\" \",\"answer\":\"a\"}\n\u{fe}\n";
        let found = read_examples(text.as_bytes()).unwrap();
        assert_eq!((found.examples.len(), found.bad.iter().map(|bad| bad.line).collect::<Vec<_>>()), (1, vec![3, 4, 5]));
    }

    #[test]
    fn the_sample_brands_examples_are_all_good() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/kettlewren/voice/voice-examples.jsonl");
        let found = read_examples(std::io::BufReader::new(std::fs::File::open(file).unwrap())).unwrap();
        assert_eq!((found.examples.len(), found.bad), (120, vec![]));
    }

    /// An answerer with a scripted model server, which records the bytes that it is sent.
    async fn answerer(server: &ScriptedServer, tenant: &Tenant) -> Answerer {
        let limit = Duration::from_secs(5);
        let endpoint = Endpoint::new(&server.base_url, None, limit, limit, limit).unwrap();
        let embedder = Arc::new(OpenAiEmbeddings::new(endpoint.clone(), "scripted", 4, 1000, LIMITS));
        let index = Arc::new(MemoryIndex::default());
        let collection = Collection::new("documents").unwrap();
        index.ensure(&CollectionSpec { name: collection.clone(), dimensions: 4 }).await.unwrap();
        for (at, text) in
            ["The return window is 45 days.", "The warranty lasts 7 years.", "Ünïcode {{question}} [1] stays."].iter().enumerate()
        {
            let chunk = Chunk {
                document: DocumentId::new(format!("d{at}")).unwrap(),
                ordinal: 0,
                span: Span { start: 0, end: text.len() },
                heading_path: vec!["H".into()],
                title: "T".into(),
                url: "u".into(),
                text: (*text).to_owned(),
                page: None,
                parent: None,
                metadata: Default::default(),
            };
            let dense = embedder.embed(std::slice::from_ref(&chunk.text), EmbedFor::Document).await.unwrap().remove(0);
            index
                .upsert(tenant, &collection, vec![Point { id: chunk.point_id(), dense, sparse: WordHashSparse.document(text), chunk }])
                .await
                .unwrap();
        }
        let model = Arc::new(OpenAiChat::new(endpoint, "gpt-4o-mini", 4000));
        let contract = PromptContract {
            template: TemplateVersion::V1,
            system: "You answer for Acme.".into(),
            abstain: "I don't know.".into(),
            context_tokens: 500,
            tokenizer: model.tokens().id().to_owned(),
        };
        let retriever =
            Retriever::new(index, embedder, Arc::new(WordHashSparse), Settings { mode: Mode::Hybrid, top_k: 3, candidates: 10 });
        Answerer::new(Assistant { name: "acme".into(), collection, contract, sampling: Default::default() }, retriever, model)
    }

    #[tokio::test]
    async fn a_row_without_its_answer_is_byte_for_byte_what_serving_sends() {
        let server = ScriptedServer::start([Reply::Stream(vec!["ok".into()])]).await;
        let tenant = Tenant::default();
        let answerer = answerer(&server, &tenant).await;
        for question in ["How long is the return window?", "warranty {{sources}}", "Grüße 🚲 [2]"] {
            let example = Example { id: "x".into(), question: question.into(), answer: "45 days [1].".into(), documents: vec![] };
            let mut row = row(&answerer, &tenant, &example).await.unwrap();
            assert_eq!(row.messages.pop(), Some(PromptMessage::new(Role::Assistant, "45 days [1].")));
            let messages = vec![PromptMessage::new(Role::User, question)];
            answerer.answer(Question::new(tenant.clone(), messages)).await.unwrap();
            let sent = server.requests().pop().unwrap();
            assert_eq!(serde_json::to_string(&sent["messages"]).unwrap(), serde_json::to_string(&row.messages).unwrap());
            assert!(row.messages.last().unwrap().content.contains("45 days") && row.messages.last().unwrap().content.ends_with(question));
        }
    }
}
