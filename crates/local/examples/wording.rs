//! How well a cosine tells a claim in other words from a claim about something else: what `citations.semantic_bound` is chosen by.
//!
//! `wording MODELS PUBMEDQA.json [RECORDS]`: each sentence of an abstract's conclusion is a claim. Its own abstract should support it, the most similar other abstract should not.
//! Only pairs count where the rules are in doubt about the wording alone.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use groundtone_local::{LocalEmbedder, ModelStore, available_threads};
use groundtone_prompt::{Doubt, Groundedness, statements};
use groundtone_provider::{EmbedFor, Embedder};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "QUESTION")]
    question: String,
    #[serde(rename = "CONTEXTS")]
    contexts: Vec<String>,
    #[serde(rename = "LONG_ANSWER")]
    conclusion: String,
}

/// One abstract.
struct Abstract {
    question: String,
    text: String,
    claims: Vec<String>,
    of_question: Vec<f32>,
    of_sentences: Vec<Vec<f32>>,
    of_claims: Vec<Vec<f32>>,
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn best(claim: &[f32], sentences: &[Vec<f32>]) -> f32 {
    sentences.iter().map(|sentence| dot(claim, sentence)).fold(-1.0, f32::max)
}

fn in_doubt(claim: &str, source: &Abstract) -> bool {
    Groundedness::of(&source.question, claim, &[&source.text]).doubts == [Doubt::Words]
}

async fn embed(embedder: &LocalEmbedder, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
    let mut vectors = Vec::new();
    for batch in texts.chunks(embedder.limits().texts.max(1)) {
        vectors.extend(embedder.embed(batch, EmbedFor::Document).await?);
    }
    Ok(vectors)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [models, file, rest @ ..] = arguments.as_slice() else { return Err("wording MODELS PUBMEDQA.json [RECORDS]".into()) };
    let most: usize = rest.first().map_or(Ok(300), |number| number.parse())?;
    let name = "all-minilm-l6-v2-int8";
    let paths = ModelStore::new(Path::new(models)).paths(name)?;
    let embedder = LocalEmbedder::load(name, &paths[0], &paths[1], available_threads())?;
    let records: BTreeMap<String, Record> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let mut abstracts = Vec::new();
    for record in records.into_values().take(most) {
        let (text, claims) = (record.contexts.join("\n"), statements(&record.conclusion));
        let of_question = embed(&embedder, std::slice::from_ref(&record.question)).await?.remove(0);
        let (of_sentences, of_claims) = (embed(&embedder, &statements(&text)).await?, embed(&embedder, &claims).await?);
        abstracts.push(Abstract { question: record.question, text, claims, of_question, of_sentences, of_claims });
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for (at, source) in abstracts.iter().enumerate() {
        let others = abstracts.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, other)| other);
        let nearest = others.max_by(|a, b| dot(&source.of_question, &a.of_question).total_cmp(&dot(&source.of_question, &b.of_question)));
        for (claim, vector) in source.claims.iter().zip(&source.of_claims) {
            if in_doubt(claim, source) {
                own.push(best(vector, &source.of_sentences));
            }
            if let Some(nearest) = nearest.filter(|nearest| in_doubt(claim, nearest)) {
                other.push(best(vector, &nearest.of_sentences));
            }
        }
    }
    let claims: usize = abstracts.iter().map(|source| source.claims.len()).sum();
    println!("{} abstracts, {claims} claims", abstracts.len());
    println!("in doubt about the wording alone: {} with their own abstract, {} with the nearest other", own.len(), other.len());
    println!("bound  own     other");
    for step in 6..19 {
        let bound = step as f32 * 0.05;
        let share =
            |cosines: &[f32]| 100.0 * cosines.iter().filter(|cosine| **cosine >= bound).count() as f32 / cosines.len().max(1) as f32;
        println!("{bound:.2}   {:>5.1} %  {:>5.1} %", share(&own), share(&other));
    }
    Ok(())
}
