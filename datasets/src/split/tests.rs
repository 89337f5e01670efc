use super::*;
use crate::build::{Controls, RowKind};
use crate::manifest::{BuildRecord, FileRecord, SnippetRecord, SourceRecord};
use crate::random::mix;
use groundtone_prompt::{PromptContract, PromptMessage, TemplateVersion};
use groundtone_types::{Collection, Span};
use std::collections::HashSet;

fn record(at: u64, question: &str, document: &str, label: &str) -> RowRecord {
    RowRecord {
        row: at,
        start: 0,
        end: 0,
        line: at,
        example: format!("e{at}"),
        question: question.to_owned(),
        kind: RowKind::Served,
        changed: None,
        label: Some(label.to_owned()),
        group: None,
        documents: vec![document.to_owned()],
        snippets: vec![SnippetRecord {
            number: 1,
            id: uuid::Uuid::from_u128(u128::from(at)),
            document: document.to_owned(),
            document_sha256: None,
            ordinal: 0,
            span: Span { start: 0, end: 1 },
            chunk_sha256: String::new(),
        }],
        oracle: vec![1],
        cited: vec![],
        gated: false,
        rejected: None,
    }
}

/// A question of its own for each number.
fn words(at: u64) -> String {
    format!("{:x} {:x}?", mix(at), mix(at + 1000))
}

/// A dataset with 200 rows over 40 documents, two labels, and some questions that are asked twice.
fn dataset(folder: &Path) -> PathBuf {
    let data = folder.join("all.jsonl");
    let paths = DatasetPaths::of(&data);
    let (mut rows, mut lines, mut counts) = (String::new(), String::new(), Counts::default());
    for at in 1..=200u64 {
        // Nearly the same words, four times; all others have nothing in common.
        let question = if at % 50 == 0 {
            format!("Could you please tell me what the PRICE of the Heron kettle is{}", "?".repeat(at as usize / 50))
        } else {
            words(at)
        };
        let row = Row::new(vec![PromptMessage::new(Role::User, &question)], "x");
        let entry = Entry::Row(Box::new(record(at, &question, &format!("d{}.md", at % 40), if at % 4 == 0 { "rare" } else { "usual" })));
        counts.add(&entry);
        rows.push_str(&(serde_json::to_string(&row).unwrap() + "\n"));
        lines.push_str(&(serde_json::to_string(&entry).unwrap() + "\n"));
    }
    std::fs::write(&data, rows).unwrap();
    std::fs::write(&paths.rows, lines).unwrap();
    let prompt =
        PromptContract { template: TemplateVersion::V1, system: "s".into(), abstain: "a".into(), context_tokens: 1, tokenizer: "t".into() };
    let build = BuildRecord {
        prompt_fingerprint: prompt.fingerprint().to_string(),
        prompt,
        chat_model: "m".into(),
        collection: Collection::new("documents").unwrap(),
        generation: Collection::new("documents@1").unwrap(),
        vectors: "v".into(),
        retrieval: serde_json::Value::Null,
        seed: 0,
        controls: Controls::default(),
    };
    let nothing = FileRecord { name: "x".into(), sha256: String::new(), bytes: 0, lines: 0 };
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        groundtone: "0".into(),
        file: describe(&data).unwrap(),
        rows_file: describe(&paths.rows).unwrap(),
        source: SourceRecord { file: nothing, options: serde_json::Value::Null },
        build,
        counts,
        split: None,
    };
    manifest.write(&data).unwrap();
    data
}

fn settings(data: &Path, out: &str) -> SplitSettings {
    SplitSettings {
        data: data.to_owned(),
        out: data.with_file_name(out),
        parts: vec![("train".into(), 0.8), ("validation".into(), 0.1), ("test".into(), 0.1)],
        by: GroupBy::Document,
        seed: 3,
        overwrite: false,
    }
}

#[test]
fn no_document_and_no_question_is_in_two_parts() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path());
    let report = split(&settings(&data, "parts")).unwrap();
    assert_eq!(report.parts.iter().map(|part| part.rows).sum::<u64>(), 200);
    assert!(report.parts.iter().all(|part| (part.got - part.wanted).abs() < 0.03), "{report:?}");
    let (mut documents, mut questions) = (HashSet::new(), HashSet::new());
    for part in &report.parts {
        let manifest = Manifest::read(&part.path).unwrap().unwrap();
        manifest.verify(&part.path).unwrap();
        let split = manifest.split.as_ref().unwrap();
        assert_eq!((split.part.as_str(), split.of.as_str()), (part.name.as_str(), "all.jsonl"));
        // Both labels are everywhere.
        assert_eq!(manifest.counts.labels.len(), 2, "{}", part.name);
        let rows: Vec<RowRecord> = read_entries(&DatasetPaths::of(&part.path).rows)
            .unwrap()
            .map(|entry| match entry.unwrap() {
                Entry::Row(row) => *row,
                other => panic!("{other:?}"),
            })
            .collect();
        let here: HashSet<String> = rows.iter().map(|row| row.documents[0].clone()).collect();
        let asked: HashSet<String> = rows.iter().map(|row| row.question.trim_end_matches('?').to_owned()).collect();
        assert!(documents.is_disjoint(&here) && questions.is_disjoint(&asked));
        documents.extend(here);
        questions.extend(asked);
        // The record is the row's own.
        let text = std::fs::read_to_string(&part.path).unwrap();
        for (line, row) in text.lines().zip(&rows) {
            assert!(line.contains(&row.question));
            assert_eq!(&text[row.start as usize..row.end as usize], format!("{line}\n"));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_parts() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path());
    let hashes = |out: &str, seed| {
        split(&SplitSettings { seed, ..settings(&data, out) }).unwrap().parts.into_iter().map(|part| part.sha256).collect::<Vec<_>>()
    };
    let first = hashes("a", 3);
    assert_eq!(first, hashes("b", 3));
    assert_ne!(first, hashes("c", 4));
    assert!(matches!(split(&settings(&data, "a")), Err(Error::Exists { .. })));
}

#[test]
fn a_changed_dataset_is_noticed_and_one_without_a_manifest_is_split_by_its_questions() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path());
    std::fs::write(&data, std::fs::read_to_string(&data).unwrap().replacen(&words(7), &words(8), 1)).unwrap();
    assert!(split(&settings(&data, "a")).unwrap_err().to_string().contains("is not the file that its manifest describes"));
    std::fs::remove_file(DatasetPaths::of(&data).manifest).unwrap();
    let report = split(&settings(&data, "a")).unwrap();
    // Four rows ask for the price, and two the eighth question.
    assert_eq!((report.rows, report.groups, report.largest_group, report.ungrouped), (200, 196, 4, 200));
}
