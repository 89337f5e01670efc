//! Another embedder or other chunks, built beside what answers, compared with it, and switched to at once.

use super::support::{Server, groundtone, run, run_failing, run_json, small_shop, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

fn names(folder: &Path) -> Vec<(String, bool)> {
    let list = run_json(folder, &["generations", "--json"]);
    let one = |generation: &Value| (generation["name"].as_str().unwrap().to_owned(), generation["live"].as_bool().unwrap());
    list["generations"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_generation_is_built_compared_switched_to_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    run_json(folder.path(), &["ingest", path, "--json"]);
    assert_eq!(names(folder.path()), [("documents@1".to_owned(), true)]);
    let (text, _) = run_failing(folder.path(), &["generations", "switch"]);
    assert!(text.contains("has no generation beside the live one") && text.contains("--generation"), "{text}");
    // Other chunks; the new page is only in the new generation.
    std::fs::write(documents.join("sale.md"), "# Sale\n\nThe walnut grinder costs 99 euro in October.\n").unwrap();
    let wide = |arguments: &[&str]| {
        let output = groundtone(folder.path(), arguments).env("GROUNDTONE_INGEST_CHUNK_TOKENS", "120").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let report = wide(&["ingest", path, "--generation", "--json"]);
    assert_eq!((&report["new"], &report["collection"]), (&6.into(), &"documents@2".into()));
    assert_eq!(report["embedded"], 1, "what was embedded for the first generation is known");
    assert_eq!(wide(&["ingest", path, "--generation", "--json"])["unchanged"], 6, "the same one is gone on with");
    assert_eq!(names(folder.path()), [("documents@1".to_owned(), true), ("documents@2".to_owned(), false)]);
    let found = || run_json(folder.path(), &["search", "walnut grinder", "--json"]).to_string();
    assert!(!found().contains("99 euro"));
    std::fs::write(folder.path().join("questions.jsonl"), "{\"question\": \"walnut grinder\"}\nopening hours on Saturday\n").unwrap();
    let compared = run_json(folder.path(), &["generations", "compare", "questions.jsonl", "--json"]);
    assert_eq!((&compared["questions"], &compared["other_first"]), (&2.into(), &1.into()), "{compared}");
    assert_eq!(compared["differences"][0]["other"], "sale.md");
    assert_eq!(run_json(folder.path(), &["generations", "switch", "--json"])["live"], "documents@2");
    assert!(found().contains("99 euro"));
    assert_eq!(run_json(folder.path(), &["generations", "rollback", "--json"])["live"], "documents@1");
    assert!(!found().contains("99 euro"));
    run_json(folder.path(), &["generations", "switch", "documents@2", "--json"]);
    assert_eq!(run_json(folder.path(), &["generations", "gc", "--json"])["removed"], json!([]), "one is kept for a rollback");
    assert_eq!(run_json(folder.path(), &["generations", "gc", "--keep", "0", "--json"])["removed"], json!(["documents@1"]));
    assert!(found().contains("99 euro") && run(folder.path(), &["fsck"]).status.success());
    assert!(run_failing(folder.path(), &["generations", "rollback"]).0.contains("has no earlier generation"));
}

#[test]
fn a_generation_that_was_cut_off_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    run_json(folder.path(), &["ingest", path, "--json"]);
    for number in 0..600 {
        std::fs::write(documents.join(format!("part-{number}.md")), format!("# Part {number}\n\nPart {number} fits.\n")).unwrap();
    }
    let build = ["ingest", path, "--generation", "--json"];
    let mut child = groundtone(folder.path(), &build).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the second generation", || folder.path().join("data/vectors/documents@2").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let (text, code) = run_failing(folder.path(), &["generations", "switch"]);
    assert!(code == 1 && text.contains("`documents@2` is not complete"), "{text}");
    let report = run_json(folder.path(), &build);
    assert_eq!((&report["collection"], &report["found"]), (&"documents@2".into(), &605.into()));
    run_json(folder.path(), &["generations", "switch", "--json"]);
    assert_eq!(run_json(folder.path(), &["fsck", "--json"])["documents"], 605);
}

#[test]
fn another_embedder_is_built_beside_and_never_searched_with_the_wrong_one() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    run_json(folder.path(), &["ingest", path, "--json"]);
    std::fs::write(folder.path().join("german.toml"), "[store]\nbm25_language = \"german\"\n").unwrap();
    let german = |arguments: &[&str]| run(folder.path(), &[&["--config", "german.toml"], arguments].concat());
    assert!(german(&["ingest", path, "--generation"]).status.success());
    // The live one was built in English: the German configuration can compare only when it is told so.
    let refused = german(&["generations", "compare", "german.toml"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--live-config"), "{}", String::from_utf8_lossy(&refused.stderr));
    std::fs::write(folder.path().join("english.toml"), "").unwrap();
    std::fs::write(folder.path().join("questions.txt"), "What does the Birch grinder cost?\n").unwrap();
    let compared = german(&["generations", "compare", "questions.txt", "--live-config", "english.toml"]);
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let (text, _) = run_failing(folder.path(), &["generations", "switch", "documents@2"]);
    assert!(text.contains("their vectors do not mix"), "{text}");
    assert!(german(&["generations", "switch"]).status.success());
    assert!(german(&["search", "grinder"]).status.success());
    assert!(!run(folder.path(), &["search", "grinder"]).status.success());
}

#[test]
fn a_running_server_answers_from_another_generation_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    let path = documents.to_str().unwrap();
    run_json(folder.path(), &["ingest", path, "--json"]);
    std::fs::write(documents.join("sale.md"), "# Sale\n\nThe walnut grinder costs 99 euro in October.\n").unwrap();
    run_json(folder.path(), &["ingest", path, "--generation", "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let found = || server.json("POST", "/v1/groundtone/search", &json!({"query": "walnut grinder"})).1.to_string().contains("99 euro");
    assert!(!found());
    // The command line goes through the server.
    assert_eq!(run_json(folder.path(), &["generations", "switch", "--json"])["live"], "documents@2");
    assert!(found());
    let (status, list) = server.json("POST", "/v1/groundtone/generations/switch", &json!({"rollback": true}));
    assert_eq!((status, &list["generations"][0]["live"]), (200, &true.into()));
    assert!(!found());
    let (status, refused) = server.json("POST", "/v1/groundtone/generations/switch", &json!({"to": "documents@9"}));
    assert!(status == 404 && refused["error"]["message"].as_str().unwrap().contains("documents@9"), "{refused}");
    server.kill_hard();
    assert_eq!(names(folder.path())[0], ("documents@1".to_owned(), true), "what was switched to survives kill -9");
}
