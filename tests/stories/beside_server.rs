//! Commands on a data directory that a server has open: the server does the work, and nobody else may ask it to.

use super::support::{Server, groundtone, run_failing, run_json, small_shop};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Runs with records on standard input.
fn piped(folder: &Path, arguments: &[&str], input: &str) -> Value {
    let mut command = groundtone(folder, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap()).unwrap()
}

#[test]
fn a_folder_is_ingested_by_the_server_that_has_the_data_directory_open() {
    let folder = tempfile::tempdir().unwrap();
    let (path, documents) = (folder.path(), small_shop(folder.path()));
    run_json(path, &["ingest", documents.to_str().unwrap(), "--json"]);
    let server = Server::start(path, &["serve"]);

    std::fs::write(documents.join("burrs.md"), "# Burrs\n\nSpare burrs of hardened steel cost 17 euro.\n").unwrap();
    std::fs::write(documents.join("price.pdf"), b"%PDF-1.7 but not really").unwrap();
    // A relative path means what it means here, whatever folder the server was started in.
    let name = documents.file_name().unwrap().to_str().unwrap();
    let planned = run_json(path, &["ingest", name, "--dry-run", "--json"]);
    assert_eq!((&planned["new"], &planned["dry_run"]), (&json!(1), &json!(true)));
    let report = run_json(path, &["ingest", name, "--prune", "--json"]);
    assert_eq!((&report["new"], &report["changed"], &report["rejected"][0]["document"]), (&json!(1), &json!(0), &json!("price.pdf")));
    assert!(run_json(path, &["search", "what do spare burrs cost", "--json"]).to_string().contains("17 euro"));
    let again = run_json(path, &["ingest", name, "--prune", "--json"]);
    assert_eq!((&again["new"], &again["changed"], &again["embed_calls"]), (&json!(0), &json!(0), &json!(0)));

    let record = json!({"id": "lids", "text": "Lids of the large kettle cost 6 euro."});
    let piped = piped(path, &["ingest", "-", "--json"], &format!("{record}\n"));
    assert_eq!((&piped["new"], &piped["source"]), (&json!(1), &json!("-")));
    assert!(run_json(path, &["search", "what do lids cost", "--json"]).to_string().contains("6 euro"));
    let left: Vec<_> = std::fs::read_dir(path.join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("stdin-")), "{left:?}");

    let runs = run_json(path, &["runs", "--json"]);
    assert_eq!(runs["runs"].as_array().unwrap().len(), 4, "a dry run is no run");
    let shown = run_json(path, &["runs", "show", report["run"].as_str().unwrap(), "--json"]);
    assert_eq!(shown["report"], report);
    assert_eq!(run_json(path, &["runs", "rejected", "--json"])["rejected"][0]["document"], "price.pdf");
    assert_eq!(run_json(path, &["fsck", "--json"])["orphans"], 0);

    let beside = run_json(path, &["ingest", name, "--generation", "--json"]);
    let new = beside["collection"].as_str().unwrap();
    assert_eq!(run_json(path, &["generations", "switch", "--json"])["live"], new);
    assert_eq!(run_json(path, &["generations", "gc", "--keep", "0", "--json"])["removed"].as_array().unwrap().len(), 1);
    let (text, code) = run_failing(path, &["ingest", "nowhere"]);
    assert!(code == 1 && text.contains("nowhere") && !text.contains("Refused"), "{text}");
    assert_eq!(server.request("GET", "/healthz", &[], "").0, 200);
}

#[test]
fn only_who_can_read_the_data_directory_may_steer_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("passwords.txt"), "The password of the safe is 1234.").unwrap();
    let order = json!({"locations": [secrets]}).to_string();
    for (method, path, body) in [
        ("POST", "/v1/groundtone/ingest", order.as_str()),
        ("GET", "/v1/groundtone/runs?limit=5", ""),
        ("GET", "/v1/groundtone/runs/0", ""),
        ("GET", "/v1/groundtone/rejected?collection=documents", ""),
        ("POST", "/v1/groundtone/fsck", r#"{"collection":"documents"}"#),
        ("POST", "/v1/groundtone/datasets", r#"{"tenant":"default","build":{}}"#),
        ("POST", "/v1/groundtone/generations/gc", r#"{"keep":0}"#),
        ("POST", "/v1/groundtone/models/export", r#"{"model":"ft:a","format":"peft","to":"/tmp/there"}"#),
        ("POST", "/v1/groundtone/models/import", r#"{"folder":"/etc","name":"a"}"#),
    ] {
        for headers in [&[][..], &[("x-groundtone-owner", "guess")], &[("authorization", "Bearer guess")]] {
            let (status, _, body) = server.request(method, path, headers, body);
            assert_eq!(status, 403, "{method} {path}: {body}");
        }
    }
    let holder: Value = serde_json::from_slice(&std::fs::read(folder.path().join("data/holder.json")).unwrap()).unwrap();
    let key = holder["owner_key"].as_str().unwrap();
    let headers = [("x-groundtone-owner", key)];
    let (status, _, body) = server.request("POST", "/v1/groundtone/ingest", &headers, &json!({"locations": [documents]}).to_string());
    assert!(status == 200 && body.contains("\"report\"") && body.contains("[DONE]"), "{status} {body}");
    assert!(!std::fs::read_to_string(&server.log).unwrap().contains(key), "the key is not logged");
}
