//! Ingest through the binary: what is unchanged costs nothing, what changed is replaced, what was killed is taken up again.

use super::support::{Server, groundtone, run, run_failing, run_json, small_shop, wait_for};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_second_run_costs_nothing_and_a_change_replaces_the_old_text() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    let first = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&first["new"], &first["rejected"]), (&5.into(), &serde_json::json!([])));
    let second = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&second["unchanged"], &second["embed_calls"], &second["chunks"]), (&5.into(), &0.into(), &0.into()));
    std::fs::write(
        documents.join("policies/returns.md"),
        "# Returns\n\n## Window\n\nYou can send your grinder back within 60 days of delivery.\n",
    )
    .unwrap();
    std::fs::remove_file(documents.join("hours.txt")).unwrap();
    let third = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&third["changed"], &third["missing"]), (&1.into(), &serde_json::json!(["hours.txt"])));
    let found = |question: &str| run_json(folder.path(), &["search", question, "--json", "--top-k", "20"]).to_string();
    assert!(found("send back days").contains("60 days") && !found("send back days").contains("45 days"));
    assert!(!found("return label").contains("6 euro"), "the removed section is gone");
    assert!(found("opening hours").contains("Graz opens at nine"));
    let pruned = run_json(folder.path(), &["ingest", path, "--prune", "--json"]);
    assert_eq!(pruned["removed"], 1);
    assert!(!found("opening hours").contains("Graz opens at nine"));
}

#[test]
fn what_is_found_names_its_document_and_headings() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--url-prefix", "https://shop.example/help", "--json"]);
    for (question, document, heading) in [
        ("How long can I send it back?", "policies/returns.md", Some("Window")),
        ("price of the Birch grinder", "prices.csv", None),
        ("when do you open on Saturday", "hours.txt", None),
        ("since when do you exist", "about.html", Some("About us")),
    ] {
        let hits = run_json(folder.path(), &["search", question, "--json"]);
        let first = &hits["hits"][0];
        assert_eq!(first["document"], document, "{question}");
        assert_eq!(first["url"], format!("https://shop.example/help/{document}"));
        assert_eq!(first["heading_path"].as_array().unwrap().last().and_then(|heading| heading.as_str()), heading, "{question}");
    }
}

#[test]
fn killed_in_the_middle_it_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("many");
    std::fs::create_dir(&documents).unwrap();
    for number in 0..400 {
        let text = format!(
            "# Part {number}\n\n## Use\n\nPart number {number} fits grinder model {}.\n\n## Care\n\nClean part {number} every {} weeks.\n",
            number % 7,
            number % 9 + 1
        );
        std::fs::write(documents.join(format!("part-{number}.md")), text).unwrap();
    }
    let path = documents.to_str().unwrap();
    for milliseconds in [900, 1300, 1800] {
        let mut child = groundtone(folder.path(), &["ingest", path]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let resumed = run_json(folder.path(), &["ingest", path, "--json"]);
    let (new, unchanged) = (resumed["new"].as_u64().unwrap(), resumed["unchanged"].as_u64().unwrap());
    println!("after three kills: {new} documents were left to do, {unchanged} were done");
    assert_eq!(new + unchanged, 400);
    assert_eq!(run_json(folder.path(), &["ingest", path, "--json"])["unchanged"], 400);
    for number in [0, 17, 203, 399] {
        let hits = run_json(folder.path(), &["search", &format!("which grinder does part number {number} fit"), "--json", "--top-k", "20"]);
        let ids: Vec<&str> = hits["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
        let distinct: std::collections::HashSet<&&str> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "nothing is there twice");
        assert!(hits.to_string().contains(&format!("Part number {number} fits")), "part {number}");
    }
}

/// Sections of about sixty words each, so that a chunk holds one of them.
fn manual(sections: usize, changed: Option<usize>) -> String {
    let mut text = "# Manual\n".to_owned();
    for section in 0..sections {
        let word = if changed == Some(section) { "replaced" } else { "cleaned" };
        text.push_str(&format!(
            "\n## Part {section}\n\nPart {section} is {word} every {} weeks. {}\n",
            section + 2,
            "It fits. ".repeat(25)
        ));
    }
    text
}

#[test]
fn a_changed_paragraph_is_embedded_alone_even_when_everything_below_it_moves() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("docs");
    std::fs::create_dir(&documents).unwrap();
    let path = documents.to_str().unwrap();
    std::fs::write(documents.join("manual.md"), manual(30, None)).unwrap();
    let first = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&first["chunks"], &first["embedded"]), (&30.into(), &30.into()));
    std::fs::write(documents.join("manual.md"), manual(30, Some(4))).unwrap();
    let second = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&second["changed"], &second["chunks"], &second["embedded"]), (&1.into(), &30.into(), &1.into()));
    // A new first section moves all the others.
    let moved = manual(30, Some(4)).replacen("# Manual\n", "# Manual\n\n## New\n\nThis is new.\n", 1);
    std::fs::write(documents.join("manual.md"), moved).unwrap();
    let third = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&third["chunks"], &third["embedded"]), (&31.into(), &1.into()));
    // Back to the beginning: everything is known.
    std::fs::write(documents.join("manual.md"), manual(30, None)).unwrap();
    let fourth = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&fourth["changed"], &fourth["embed_calls"]), (&1.into(), &0.into()));
    assert_eq!(run_json(folder.path(), &["fsck", "--json"])["orphans"], 0);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    let priced = |arguments: &[&str]| {
        let output = groundtone(folder.path(), arguments).env("GROUNDTONE_EMBEDDER_PRICE_PER_MILLION_TOKENS", "0.02").output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let plan = priced(&["ingest", path, "--dry-run", "--json"]);
    assert_eq!((&plan["dry_run"], &plan["new"], &plan["embed_calls"]), (&true.into(), &5.into(), &0.into()));
    assert!(run_failing(folder.path(), &["search", "grinder"]).0.contains("there is no collection"));
    let done = priced(&["ingest", path, "--json"]);
    for key in ["new", "chunks", "tokens", "embedded", "embedded_tokens", "cost"] {
        assert_eq!(plan[key], done[key], "{key}");
    }
    std::fs::remove_file(documents.join("hours.txt")).unwrap();
    let plan = priced(&["ingest", path, "--dry-run", "--prune", "--json"]);
    assert_eq!((&plan["unchanged"], &plan["removed"], &plan["embedded"]), (&4.into(), &1.into(), &0.into()));
    assert_eq!(priced(&["ingest", path, "--json"])["missing"], json!(["hours.txt"]), "a dry run removes nothing");
}

#[test]
fn one_source_never_touches_the_documents_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let other = folder.path().join("other");
    std::fs::create_dir_all(other.join("policies")).unwrap();
    std::fs::write(other.join("careers.md"), "# Careers\n\nWe look for a millwright in Graz.\n").unwrap();
    std::fs::write(other.join("policies/returns.md"), "# Returns\n\nNever.\n").unwrap();
    let (ours, theirs) = (documents.to_str().unwrap(), other.to_str().unwrap());
    run_json(folder.path(), &["ingest", ours, "--json"]);
    let report = run_json(folder.path(), &["ingest", theirs, "--prune", "--json"]);
    assert_eq!((&report["new"], &report["removed"], &report["missing"]), (&1.into(), &0.into(), &json!([])));
    let reason = report["rejected"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("has the id of a document that came from ") && reason.contains("--source"), "{reason}");
    assert_eq!(run_json(folder.path(), &["ingest", ours, "--prune", "--json"])["unchanged"], 5);
    // A folder that has moved keeps its name.
    let moved = folder.path().join("moved");
    std::fs::rename(&documents, &moved).unwrap();
    let name = documents.canonicalize().unwrap_or(documents.clone());
    let report = run_json(folder.path(), &["ingest", moved.to_str().unwrap(), "--source", name.to_str().unwrap(), "--prune", "--json"]);
    assert_eq!((&report["rejected"], &report["removed"]), (&json!([]), &0.into()));
}

#[test]
fn drift_between_catalog_and_index_is_found_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    run_json(folder.path(), &["ingest", path, "--json"]);
    assert!(run(folder.path(), &["fsck"]).status.success());
    // The index of yesterday under the catalog of today.
    let (vectors, yesterday) = (folder.path().join("data/vectors"), folder.path().join("yesterday"));
    copy_folder(&vectors, &yesterday);
    std::fs::write(documents.join("new.md"), "# New\n\nA new page about burrs.\n").unwrap();
    std::fs::remove_file(documents.join("hours.txt")).unwrap();
    run_json(folder.path(), &["ingest", path, "--prune", "--json"]);
    std::fs::remove_dir_all(&vectors).unwrap();
    std::fs::rename(&yesterday, &vectors).unwrap();
    let (text, code) = run_failing(folder.path(), &["fsck"]);
    assert!(code == 1 && text.contains("incomplete: new.md") && text.contains("--repair"), "{text}");
    let repaired = run_json(folder.path(), &["fsck", "--repair", "--json"]);
    assert_eq!((&repaired["orphans"], &repaired["incomplete"], &repaired["repaired"]), (&1.into(), &json!(["new.md"]), &true.into()));
    let report = run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!((&report["changed"], &report["embed_calls"]), (&1.into(), &0.into()), "its vectors are still known");
    assert!(run(folder.path(), &["fsck"]).status.success());
    assert!(run_json(folder.path(), &["search", "burrs", "--json"]).to_string().contains("A new page about burrs"));
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn what_is_found_says_what_each_arm_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let hits = run_json(folder.path(), &["search", "Birch electric grinder", "--json"]);
    let hit = &hits["hits"][0];
    for key in ["id", "score", "document", "title", "url", "text"] {
        assert!(!hit[key].is_null(), "{key}: {hit}");
    }
    assert_eq!(hit["arms"]["bm25"]["rank"], 1);
    assert!(hit["arms"]["dense"]["score"].as_f64().unwrap() > 0.3, "{hit}");
}

#[test]
fn documents_are_pushed_looked_up_and_deleted_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let found = |question: &str| server.json("POST", "/v1/groundtone/search", &json!({"query": question})).1.to_string();
    let place = "/v1/groundtone/documents/news/autumn%20sale.md";
    assert_eq!(server.json("GET", place, &Value::Null).0, 404);
    let body = json!({"text": "# Autumn\n\nThe walnut grinder costs 99 euro in October.", "url": "https://shop.example/autumn"});
    let (status, report) = server.json("PUT", place, &body);
    assert_eq!((status, &report["new"], &report["chunks"]), (200, &1.into(), &1.into()), "{report}");
    assert!(found("walnut grinder").contains("99 euro"));
    assert_eq!(server.json("PUT", place, &body).1["unchanged"], 1);
    let (_, stored) = server.json("GET", place, &Value::Null);
    assert_eq!((&stored["id"], &stored["source"], &stored["points"]), (&"news/autumn sale.md".into(), &"push".into(), &1.into()));
    let changed = json!({"text": "The walnut grinder costs 89 euro.", "title": "Autumn", "format": "text"});
    assert_eq!(server.json("PUT", place, &changed).1["changed"], 1);
    assert!(found("walnut grinder").contains("89 euro") && !found("walnut grinder").contains("99 euro"));
    let (status, refused) = server.json("PUT", "/v1/groundtone/documents/hours.txt", &changed);
    assert!(status == 400 && refused["error"]["message"].as_str().unwrap().contains("came from"), "{refused}");
    let (status, receipt) = server.json("DELETE", place, &Value::Null);
    assert_eq!((status, receipt), (200, json!({"document": "news/autumn sale.md", "points": 1, "left": 0})));
    assert!(!found("walnut grinder").contains("89 euro"));
    assert_eq!(server.json("DELETE", place, &Value::Null).0, 404);
}

#[test]
fn a_followed_folder_is_ingested_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let log = folder.path().join("reports.jsonl");
    let mut command = groundtone(folder.path(), &["ingest", documents.to_str().unwrap(), "--watch", "--prune", "--json"]);
    let mut child = command.stdout(std::fs::File::create(&log).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let reports = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait_for("the first run", || reports().len() == 1);
    std::fs::write(documents.join("sale.md"), "# Sale\n\nThe walnut grinder costs 99 euro in October.\n").unwrap();
    wait_for("a run after a new file", || reports().iter().any(|report| report["new"] == 1));
    std::fs::remove_file(documents.join("hours.txt")).unwrap();
    wait_for("a run after a removal", || reports().iter().any(|report| report["removed"] == 1));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run_json(folder.path(), &["search", "walnut grinder", "--json"]).to_string().contains("99 euro"));
}
