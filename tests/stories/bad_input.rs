//! What a user gets wrong: each time one clear sentence, an exit code, and nothing lost.

use super::support::{Server, groundtone, run, run_failing, run_json, small_shop};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[test]
fn a_wrong_key_names_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("groundtone.toml"), "[retrieval]\ntopk = 3\n").unwrap();
    let (text, code) = run_failing(folder.path(), &["search", "x"]);
    insta::assert_snapshot!(text, @"
    error: unknown key `retrieval.topk` in groundtone.toml; did you mean `retrieval.top_k`?
    hint: `groundtone config` prints every key with its documentation
    ");
    assert_eq!(code, 1);
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run_failing(folder.path(), &["ingets", "x"]).1, 2);
}

#[test]
fn a_folder_without_documents_or_no_folder_at_all() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = folder.path().join("empty");
    insta::assert_snapshot!(run_failing(folder.path(), &["ingest", empty.to_str().unwrap()]).0, @"
    error: found no documents in FOLDER/empty; formats: .md, .markdown, .mdx, .txt, .text, .html, .htm, .xhtml, .csv, .tsv, .pdf, .docx, .docm, .pptx, .pptm, .xlsx, .xlsm, .xlsb, .xls, .ods, .epub, .rs, .py, .pyi, .js, .mjs, .cjs, .jsx, .ts, .mts, .cts, .tsx, .go, .java, .c, .h, .cc, .cpp, .cxx, .hh, .hpp, .sh, .bash, .rb
    hint: name a folder, a file, a pattern, a web page, a sitemap, s3://bucket/prefix, or - for records on standard input
    ");
    let missing = folder.path().join("missing");
    insta::assert_snapshot!(run_failing(folder.path(), &["ingest", missing.to_str().unwrap()]).0, @"
    error: cannot read FOLDER/missing: no such file or directory
    hint: name a folder, a file, a pattern, a web page, a sitemap, s3://bucket/prefix, or - for records on standard input
    ");
}

#[test]
fn files_that_cannot_be_read_cost_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    std::fs::write(documents.join("picture.md"), [0x89, b'P', b'N', b'G', 0, 0, 0, 13]).unwrap();
    std::fs::write(documents.join("blank.md"), "  \n").unwrap();
    std::fs::write(documents.join("secret.md"), "# Secret").unwrap();
    std::fs::set_permissions(documents.join("secret.md"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let report = run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let rejected: Vec<(&str, &str)> = report["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["path"].as_str().unwrap().rsplit('/').next().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert!(rejected.contains(&("picture.md", "is a binary file: it holds NUL bytes")), "{rejected:?}");
    assert!(rejected.contains(&("blank.md", "holds no text")), "{rejected:?}");
    // Root may read everything; anybody else is told why not.
    if std::fs::read(documents.join("secret.md")).is_err() {
        assert!(rejected.contains(&("secret.md", "cannot be read: permission denied")), "{rejected:?}");
    } else {
        assert!(rejected.contains(&("secret.md", "holds headings but no text")), "{rejected:?}");
    }
    assert_eq!((&report["found"], &report["new"]), (&8.into(), &5.into()));
}

#[test]
fn searching_before_ingesting() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(run_failing(folder.path(), &["search", "x"]).0, @"
    error: there is no collection `documents` in FOLDER/data
    hint: run `groundtone ingest FOLDER` first, or `groundtone demo`
    ");
}

#[test]
fn a_missing_or_broken_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        groundtone(folder.path(), &["ingest", "."]).env("GROUNDTONE_MODELS_DIRECTORY", folder.path().join("models")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).replace(&folder.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(text, @"
    error: model `all-minilm-l6-v2-int8` is not on this machine and the configuration says offline
    hint: run `groundtone models pull all-minilm-l6-v2-int8` once where the network is, or copy the files to FOLDER/models
    ");
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    for (path, words) in
        [("nowhere.gguf", "nowhere.gguf cannot be read"), ("documents/hours.txt", "is no GGUF model that llama.cpp can load")]
    {
        let output = groundtone(folder.path(), &["ask", "x"]).env("GROUNDTONE_CHAT_PATH", folder.path().join(path)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words) && text.contains("hint: check `chat.path`"), "{text}");
    }
}

#[test]
fn a_port_in_use_and_a_directory_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let port = server.address.rsplit(':').next().unwrap();
    let (text, code) = run_failing(folder.path(), &["serve", "--port", port]);
    assert_eq!(
        text.replace(port, "PORT"),
        "error: port PORT on 127.0.0.1 is in use\nhint: choose another with --port, or --port 0 for a free one\n"
    );
    assert_eq!(code, 1);
    let (text, _) = run_failing(folder.path(), &["serve", "--port", "0"]);
    let expect =
        format!("error: the data directory FOLDER/data is in use by process {} (groundtone serve) at {}", server.pid(), server.address);
    assert!(text.starts_with(&expect) && text.contains("hint: stop process"), "{text}");
    // Killed hard, it leaves no lock behind, and nothing is lost.
    server.kill_hard();
    let report = run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    assert_eq!((&report["unchanged"], &report["embed_calls"]), (&5.into(), &0.into()));
}

#[test]
fn other_vectors_are_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let german =
        |arguments: &[&str]| groundtone(folder.path(), arguments).env("GROUNDTONE_STORE_BM25_LANGUAGE", "german").output().unwrap();
    let refused = german(&["ingest", documents.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("their vectors do not mix") && text.contains("--full") && text.contains("--generation"),
        "{text}"
    );
    assert!(!german(&["search", "grinder"]).status.success());
    assert!(german(&["ingest", "--full", documents.to_str().unwrap()]).status.success());
    assert!(german(&["search", "grinder"]).status.success());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = groundtone(folder.path(), &["config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(run(folder.path(), &["config"]).status.success());
}
