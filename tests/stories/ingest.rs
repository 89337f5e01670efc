//! Ingest through the binary: what is unchanged costs nothing, what changed is replaced, what was killed is taken up again.

use super::support::{groundtone, run_json, small_shop};
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
