//! The official SDKs against the binary: real retrieval, and a scripted model server behind it that shows what it was sent.
//!
//! docs/reference/conformance.md lists every case; this test holds the list.

use super::support::{Server, run_json, small_shop};
use groundtone_testkit::{RawServer, answering_shop, shop_model};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shop's server in front of the mock.
fn serve(folder: &Path) -> (Server, RawServer) {
    let upstream = RawServer::start(shop_model);
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    std::fs::write(folder.join("groundtone.toml"), answering_shop(&upstream.base_url)).unwrap();
    (Server::start(folder, &["serve"]), upstream)
}

/// Every case passed, every one stands on the page, and there are at least so many.
pub fn held_by_the_page(output: &Output, client: &str, least: usize) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let page = std::fs::read_to_string(root().join("docs/reference/conformance.md")).unwrap();
    let passed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    let missing: Vec<String> = passed.iter().map(|case| format!("| {client} | {case} |")).filter(|row| !page.contains(row)).collect();
    assert!(missing.is_empty(), "docs/reference/conformance.md does not list\n{}", missing.join("\n"));
    let listed = page.lines().filter(|line| line.starts_with(&format!("| {client} |"))).count();
    assert_eq!(listed, passed.len(), "docs/reference/conformance.md lists cases of {client} that did not run");
    assert!(passed.len() >= least, "only {} cases of {client}", passed.len());
}

#[test]
fn openai_python_finds_what_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let packages = std::env::var("GROUNDTONE_TEST_PYTHONPATH").expect("GROUNDTONE_TEST_PYTHONPATH names the openai package: run ./gt test");
    let script = root().join("tests/python/conformance.py");
    let output = Command::new("python3").arg(script).arg(format!("{}/v1", server.address)).env("PYTHONPATH", packages).output().unwrap();
    held_by_the_page(&output, "openai-python", 45);
}

#[test]
fn langchain_and_llamaindex_find_what_they_know() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let packages = std::env::var("GROUNDTONE_TEST_CLIENTSPATH").expect("GROUNDTONE_TEST_CLIENTSPATH names their packages: run ./gt test");
    let script = root().join("tests/python/conformance_clients.py");
    let output = Command::new("python3").arg(script).arg(format!("{}/v1", server.address)).env("PYTHONPATH", packages).output().unwrap();
    held_by_the_page(&output, "LangChain, LlamaIndex", 17);
}

#[test]
fn openai_node_finds_what_it_knows() {
    // `./gt test` sets it where node is on the machine.
    let Some(packages) = std::env::var_os("GROUNDTONE_TEST_NODEPATH").map(PathBuf::from) else {
        println!("skipped: GROUNDTONE_TEST_NODEPATH is not set, because node is not on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let script = root().join("tests/node/conformance.mjs");
    let output = Command::new("node").arg(script).arg(packages).arg(format!("{}/v1", server.address)).output().unwrap();
    held_by_the_page(&output, "openai-node", 20);
}

/// The client of `tests/async-openai`, which is a workspace of its own; `./gt test` has compiled it.
pub fn async_openai(arguments: &[&str]) -> Output {
    let manifest = root().join("tests/async-openai/Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest).arg("--").args(arguments);
    command.output().unwrap()
}

#[test]
fn async_openai_finds_what_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let output = async_openai(&["answers", &format!("{}/v1", server.address)]);
    held_by_the_page(&output, "async-openai", 45);
}
