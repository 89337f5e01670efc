//! The house's rules that no compiler checks (docs/architecture.md).

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    ["crates", "ingest", "datasets", "src", "tests"].iter().for_each(|folder| rust_files(&root().join(folder), &mut files));
    files
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// Rooms from the ground up; a crate may use only what stands in an earlier line.
const FLOORS: &[&[&str]] = &[
    &["types", "openai-api"],
    &["telemetry", "config", "prompt"],
    &["provider", "index", "catalog"],
    &["local", "index-edge", "index-qdrant"],
    &["retrieval"],
    &["answer"],
    &["ingest", "datasets", "evals", "tuning"],
    &["server"],
    &["testkit"],
];

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name)).unwrap_or_else(|| panic!("{name} has no floor"));
    for package in metadata["packages"].as_array().unwrap() {
        let Some(name) = package["name"].as_str().unwrap().strip_prefix("groundtone-") else { continue };
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"].is_null()) {
            let Some(used) = dependency["name"].as_str().unwrap().strip_prefix("groundtone-") else { continue };
            assert!(floor(used) < floor(name), "{name} uses {used}");
        }
    }
}

#[test]
fn what_one_room_knows_no_other_names() {
    let only = [
        ("axum", &["crates/server", "crates/testkit", "crates/local/tests"][..]),
        ("reqwest", &["crates/provider"]),
        ("opentelemetry_otlp", &["crates/telemetry"]),
        ("opentelemetry_sdk", &["crates/telemetry"]),
        ("tracing_opentelemetry", &["crates/telemetry"]),
        ("object_store", &["ingest/src/source"]),
        ("notify", &["ingest/src/source"]),
        ("pdf_oxide", &["ingest"]),
        ("undoc", &["ingest"]),
        ("calamine", &["ingest"]),
        ("qdrant_client", &["crates/index-qdrant"]),
        ("qdrant_edge", &["crates/index-edge", "crates/index-qdrant/tests"]),
        (
            "std::env::var",
            &[
                "crates/config",
                "tests",
                "crates/index-edge/tests",
                "crates/index-qdrant/tests",
                "crates/local/tests",
                "crates/tuning/tests",
                "ingest/examples",
            ],
        ),
    ];
    for (file, text) in sources() {
        for (word, homes) in only {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let at_home = homes.iter().any(|home| file.starts_with(home)) || file == "tests/stories/architecture.rs";
            assert!(
                at_home || !code.into_iter().any(|line| line.contains(&format!("{word}::")) || line.contains(&format!("{word}("))),
                "{file} names {word}"
            );
        }
    }
}

#[test]
fn files_stay_readable_and_say_what_they_are() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 800, "{file} has {lines} lines");
        assert!(!file.ends_with("/lib.rs") || text.starts_with("//!"), "{file} does not say what it is");
    }
}
