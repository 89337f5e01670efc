//! Qdrant Edge keeps the promises of every index, and what it acknowledged survives `kill -9`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and the child process speaks on stdout"
)]

use groundtone_index::{CollectionSpec, Filter, Point, SparseEmbedder, VectorIndex, conformance};
use groundtone_index_edge::{Bm25, EdgeIndex, EdgeSettings};
use groundtone_types::{Chunk, Collection, DocumentId, Span, Tenant};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn open(root: &Path) -> EdgeIndex {
    EdgeIndex::open(root, EdgeSettings { parallel_queries: 2, query_timeout: Duration::from_secs(10), indexing_threads: 2 }).unwrap()
}

fn point(number: u32) -> Point {
    let text = format!("chunk number{number}");
    let chunk = Chunk {
        document: DocumentId::new(format!("d{}", number / 10)).unwrap(),
        ordinal: number,
        span: Span { start: 0, end: text.len() },
        heading_path: vec![],
        title: "t".into(),
        url: "u".into(),
        text,
        page: None,
        parent: None,
        metadata: Default::default(),
    };
    Point {
        id: chunk.point_id(),
        dense: vec![1.0, number as f32, 0.5],
        sparse: Bm25::new("english", 10.0).unwrap().document(&chunk.text),
        chunk,
    }
}

#[tokio::test]
async fn edge_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let bm25 = Bm25::new("english", 3.0).unwrap();
    assert_eq!(conformance::check(&open(folder.path()), &bm25).await, Ok(()));
}

#[tokio::test]
async fn no_tenant_sees_another_ones_points_whatever_the_filter() {
    let folder = tempfile::tempdir().unwrap();
    let bm25 = Bm25::new("english", 3.0).unwrap();
    let done = conformance::isolation(&open(folder.path()), &bm25, 5_000, 4).await.unwrap();
    assert!(done.cases == 5_000 && done.returned > 25_000, "{done:?}");
}

#[test]
fn a_text_is_as_long_as_its_terms() {
    let bm25 = Bm25::new("english", 100.0).unwrap();
    for (text, length) in
        [("", 0), ("the and of", 0), ("grinder", 1), ("The grinders grind, grinder by grinder", 4), (&"tea ".repeat(500), 500)]
    {
        assert_eq!(bm25.length(text), length, "{text:.40}");
    }
}

#[test]
fn bm25_speaks_the_language_it_is_told() {
    let english = Bm25::new("english", 100.0).unwrap();
    assert_eq!(english.query("The grinders").indices, english.query("grinder").indices, "stemmed, and without stop words");
    assert!(Bm25::new("klingon", 100.0).is_err());
}

/// The child of the test below: stores points until it is killed, and says which ones were acknowledged.
#[tokio::test]
async fn child_that_stores_until_killed() {
    let Ok(root) = std::env::var("GROUNDTONE_TEST_CHILD") else { return };
    let index = open(Path::new(&root));
    let (tenant, name) = (Tenant::default(), Collection::new("crash").unwrap());
    index.ensure(&CollectionSpec { name: name.clone(), dimensions: 3 }).await.unwrap();
    let start: u32 = std::env::var("GROUNDTONE_TEST_START").unwrap().parse().unwrap();
    for number in start.. {
        index.upsert(&tenant, &name, vec![point(number)]).await.unwrap();
        println!("\nacknowledged {number}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=5u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_stores_until_killed", "--nocapture"])
            .env("GROUNDTONE_TEST_CHILD", folder.path())
            .env("GROUNDTONE_TEST_START", last.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let enough = last + 20 * round + 7;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                last = number.parse().unwrap();
                if last >= enough {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
    }
    let index = open(folder.path());
    let (tenant, name) = (Tenant::default(), Collection::new("crash").unwrap());
    let mut stored = std::collections::HashSet::new();
    let mut from = None;
    loop {
        let page = index.ids(&tenant, &name, &Filter::default(), from, 100).await.unwrap();
        stored.extend(page.ids);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let lost: Vec<u32> = (0..=last).filter(|number| !stored.contains(&point(*number).id)).collect();
    assert!(last > 300 && lost.is_empty(), "{last} acknowledged, lost {lost:?}");
}
