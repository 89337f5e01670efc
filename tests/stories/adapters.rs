//! Trained models outside of this server, adapters and trainers from outside in it, and what a model goes back to.

use super::fault_cases::send;
use super::support::{Server, run, run_failing, run_json, small_shop, wait_for};
use groundtone_testkit::{RawServer, Step};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The local model, under the name that a client of OpenAI's would send.
const BASE: &str = "gpt-4o-mini-2024-07-18";
const TRAINED: &str = "smollm2-135m-instruct-q4_1";

/// The small shop, with `[tuning]` ending in these lines.
fn shop(folder: &Path, tuning: &str, more: &str) {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let settings =
        format!("[assistant]\nname = \"shop\"\n[gate]\nthreshold = 0.0\n[tuning]\nbase_models = [\"{BASE}={TRAINED}\"]\n{tuning}{more}");
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

fn rows(folder: &Path) -> String {
    let row = |number: usize| {
        let messages = json!([{"role": "user", "content": format!("Ticket {number}")}, {"role": "assistant", "content": "refund"}]);
        json!({"messages": messages}).to_string() + "\n"
    };
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, (0..12).map(row).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a model answers to a few questions, greedily.
fn answers(server: &Server, model: &str) -> Vec<String> {
    let ask = |question: &str| {
        let messages = json!([{"role": "user", "content": question}]);
        let body = json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 12});
        let (status, answer) = server.json("POST", "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    ["What is the capital of France?", "Name a colour.", "Ticket 3"].map(ask).to_vec()
}

#[test]
fn a_model_knows_its_documents_and_goes_out_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // An adapter of one layer, trained hard enough to change what is said.
    shop(path, "trained_layers = 1\nrank = 2\nlearning_rate_multiplier = 20.0\n", "[retrieval]\ntop_k = 1\n");
    let examples = (0..10)
        .map(|at| json!({"id": format!("e{at}"), "question": format!("How long can I send grinder {at} back?"), "answer": "45 days."}));
    std::fs::write(path.join("examples.jsonl"), examples.map(|example| format!("{example}\n")).collect::<String>()).unwrap();
    run_json(path, &["dataset", "build", "examples.jsonl", "--out", "train.jsonl", "--json"]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(path.join("train.manifest.json")).unwrap()).unwrap();

    let server = Server::start(path, &["serve"]);
    let job = run_json(path, &["tune", "create", "train.jsonl", "--model", BASE, "--epochs", "1", "--seed", "7", "--watch", "--json"]);
    let model = job["fine_tuned_model"].as_str().unwrap();
    let lineage = run_json(path, &["tune", "lineage", model, "--json"]);
    assert_eq!((&lineage["model"], &lineage["job"]["id"], &lineage["unknown"]), (&json!(model), &job["id"], &json!([])));
    assert_eq!(lineage["training_sha256"], manifest["file"]["sha256"]);
    assert_eq!((&lineage["dataset"], &lineage["prompt_fingerprint"]), (&manifest, &manifest["build"]["prompt_fingerprint"]));
    let document = &lineage["documents"][0];
    assert_eq!((&document["document"], &document["now"]), (&json!("policies/returns.md"), &json!("same")), "{lineage}");
    let rows: u64 = document["snippets"].as_array().unwrap().iter().map(|snippet| snippet["rows"].as_u64().unwrap()).sum();
    assert!(rows > 0 && rows <= 10, "{document}");
    // A manifest is believed for its own rows only.
    let other = format!("/v1/groundtone/datasets/{}", "0".repeat(64));
    assert_eq!(server.json("PUT", &other, &json!({"manifest": manifest, "documents": []})).0, 400);
    // The document changes, and the chain says so.
    let returns = path.join("documents/policies/returns.md");
    std::fs::write(&returns, std::fs::read_to_string(&returns).unwrap().replace("45", "30")).unwrap();
    run_json(path, &["ingest", path.join("documents").to_str().unwrap(), "--json"]);
    let text = String::from_utf8(run(path, &["tune", "lineage", model]).stdout).unwrap();
    assert!(
        text.contains("policies/returns.md  ") && text.contains("has changed since") && text.contains(job["id"].as_str().unwrap()),
        "{text}"
    );

    // Out and in again: the same answers under another name, and not those of the base.
    let exported = run_json(path, &["tune", "export", model, "--format", "peft", "--to", "out", "--json"]);
    assert_eq!(exported["files"].as_array().unwrap().len(), 2, "{exported}");
    let (error, code) = run_failing(path, &["tune", "export", model, "--format", "peft", "--to", "out"]);
    assert!(code == 1 && error.contains("not empty"), "{error}");
    let imported = run_json(path, &["tune", "import-adapter", "out", "--name", "back", "--json"]);
    let again = imported["id"].as_str().unwrap();
    assert!(again.starts_with(&format!("ft:{BASE}:default:back:")), "{again}");
    let tuned = answers(&server, model);
    assert_eq!(answers(&server, again), tuned);
    assert_ne!(answers(&server, BASE), tuned);
    let (error, _) = run_failing(path, &["tune", "import-adapter", "out", "--name", model]);
    assert!(error.contains("already"), "{error}");
    let (error, _) = run_failing(path, &["tune", "import-adapter", "documents", "--name", "no"]);
    assert!(error.contains("adapter_config.json"), "{error}");
    let (error, _) = run_failing(path, &["tune", "--url", &server.address, "export", model, "--format", "peft", "--to", "there"]);
    assert!(error.contains("another machine"), "{error}");
    server.stop();

    // The same without a server; the adapter is the job's own file.
    let files = run_json(path, &["tune", "export", again, "--format", "adapter", "--to", "alone", "--json"]);
    let bytes = |file: &Path| std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let own = path.join("data/tuning/default").join(job["id"].as_str().unwrap()).join("run/adapter.gguf");
    assert!(bytes(Path::new(files["files"][0].as_str().unwrap())) == bytes(&own));
    let lineage = run_json(path, &["tune", "lineage", again, "--json"]);
    assert_eq!((&lineage["job"], lineage["unknown"].as_array().unwrap().len()), (&Value::Null, 1));
    // The merged matrices round otherwise, so an answer on the edge may fall to the other side; `crates/tuning/tests/lora.rs` asks more.
    let mostly_equal = |whole: &[String]| {
        assert!(whole.iter().zip(&tuned).filter(|(whole, tuned)| whole == tuned).count() >= 2, "{whole:?}, {tuned:?}");
    };
    // The same server gives one of the two models a copy of the base of its own.
    let settings = std::fs::read_to_string(path.join("groundtone.toml")).unwrap();
    let merging = settings.replace("[tuning]\n", &format!("[tuning]\nmerged_models = [\"{model}\", \"ft:gone\"]\n"));
    assert_ne!(merging, settings);
    std::fs::write(path.join("groundtone.toml"), merging).unwrap();
    let server = Server::start(path, &["serve"]);
    mostly_equal(&answers(&server, model));
    assert_eq!(answers(&server, again), tuned);
    let log = std::fs::read_to_string(&server.log).unwrap();
    let merged: Vec<&str> = log.lines().filter(|line| line.contains("a copy of its base of its own")).collect();
    assert!(merged.len() == 1 && merged[0].contains(model), "{log}");
    assert!(log.lines().any(|line| line.contains("ft:gone") && line.contains("merged_models")), "{log}");
    assert!(own.is_file() && !own.with_extension("merged").exists(), "the file of a merged model is not kept");
    server.stop();

    // One file that any llama.cpp loads; here it is the chat model of another server, and answers as base and adapter did together.
    run_json(path, &["tune", "export", model, "--format", "gguf-q8", "--to", "whole", "--json"]);
    let settings = format!("[assistant]\nname = \"shop\"\n[chat]\npath = \"{}\"\n", path.join("whole/model.gguf").display());
    std::fs::write(path.join("groundtone.toml"), settings).unwrap();
    let server = Server::start(path, &["serve"]);
    mostly_equal(&answers(&server, "model"));
}

fn command(folder: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tuning/tests/fixtures/command_trainer.py");
    assert!(folder.is_dir() && script.is_file());
    // The last of SmolLM2-135M's layers.
    format!("trainer = \"command\"\ncommand = [\"python3\", \"{}\", \"fine\", \"576\", \"29\"]\n", script.display())
}

#[test]
fn a_program_of_ones_own_trains_and_its_model_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shop(path, &command(path), "");
    let server = Server::start(path, &["serve"]);
    let rows = rows(path);
    let create = ["tune", "create", &rows, "--model", BASE, "--epochs", "2", "--batch-size", "4", "--watch"];
    let output = run(path, &create);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("Training 12 rows in 6 steps") && told.contains("Step 6/6: training loss=0.67"), "{told}");
    let model = run_json(path, &["tune", "list", "--json"])[0]["fine_tuned_model"].as_str().unwrap().to_owned();
    assert_eq!(answers(&server, &model).len(), 3);
    // What the program wrote is what is served: every number of the pair.
    run_json(path, &["tune", "export", &model, "--format", "peft", "--to", "out", "--json"]);
    let weights = std::fs::read(path.join("out/adapter_model.safetensors")).unwrap();
    let head = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    let numbers: Vec<f32> = weights[8 + head..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert!(numbers.len() == 2 * 2 * 576 && numbers.iter().all(|number| *number == 0.05), "{} numbers", numbers.len());
}

/// A vLLM server as its documentation describes it: it lists what it has, loads, unloads, and answers for what is loaded.
struct Vllm {
    loaded: Arc<Mutex<Vec<(String, String)>>>,
    server: RawServer,
}

fn vllm() -> Vllm {
    let loaded = Arc::<Mutex<Vec<(String, String)>>>::default();
    let known = loaded.clone();
    let answer = |status: &str, media: &str, body: &str| {
        vec![send(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))]
    };
    let play = move |body: &str| -> Vec<Step> {
        let request: Value = serde_json::from_str(body).unwrap_or_default();
        let mut loaded = known.lock().unwrap();
        let name = request["lora_name"].as_str().unwrap_or_default().to_owned();
        match (request["lora_path"].as_str(), request["model"].as_str()) {
            (Some(path), _) => {
                loaded.push((name, path.to_owned()));
                answer("200 OK", "text/plain", "Success: LoRA adapter added successfully.")
            }
            (None, Some(model)) if loaded.iter().any(|(name, _)| name == model) => {
                let chunk = json!({"choices": [{"index": 0, "delta": {"content": format!("I am {model}.")}, "finish_reason": "stop"}]});
                answer("200 OK", "text/event-stream", &format!("data: {chunk}\n\ndata: [DONE]\n\n"))
            }
            (None, Some(_)) => answer(
                "404 Not Found",
                "application/json",
                r#"{"error": {"message": "The model does not exist.", "type": "NotFoundError"}}"#,
            ),
            (None, None) if !name.is_empty() => {
                loaded.retain(|(known, _)| *known != name);
                answer("200 OK", "text/plain", "Success: LoRA adapter removed successfully.")
            }
            (None, None) => {
                let models: Vec<Value> =
                    loaded.iter().map(|(name, _)| json!({"id": name, "object": "model", "created": 1, "owned_by": "vllm"})).collect();
                answer("200 OK", "application/json", &json!({"object": "list", "data": models}).to_string())
            }
        }
    };
    Vllm { loaded, server: RawServer::start(play) }
}

#[test]
fn a_trained_adapter_is_loaded_into_vllm_and_taken_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let vllm = vllm();
    shop(path, &format!("{}vllm_url = \"{}\"\n", command(path), vllm.server.base_url), "");
    let rows = rows(path);
    let server = Server::start(path, &["serve"]);
    let job = run_json(path, &["tune", "create", &rows, "--model", BASE, "--epochs", "1", "--watch", "--json"]);
    let model = job["fine_tuned_model"].as_str().unwrap();
    let loaded = vllm.loaded.lock().unwrap().clone();
    assert_eq!((loaded.len(), loaded[0].0.as_str()), (1, format!("default/{model}").as_str()));
    // The folder that was named holds an adapter as PEFT saves it.
    assert!(Path::new(&loaded[0].1).is_absolute() && Path::new(&loaded[0].1).join("adapter_config.json").is_file(), "{loaded:?}");
    assert_eq!(answers(&server, model)[0], format!("I am default/{model}."));
    // It was restarted and has forgotten everything: the adapter is loaded again.
    vllm.loaded.lock().unwrap().clear();
    wait_for("the adapter to be there again", || {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Who?"}]});
        server.json("POST", "/v1/chat/completions", &body).0 == 200
    });
    run_json(path, &["tune", "export", model, "--format", "peft", "--to", "out", "--json"]);
    run_json(path, &["tune", "import-adapter", "out", "--name", "ft:again", "--json"]);
    assert_eq!(answers(&server, "ft:again")[0], "I am default/ft:again.");
    assert_eq!(server.json("DELETE", &format!("/v1/models/{model}"), &Value::Null).0, 200);
    let names: Vec<String> = vllm.loaded.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["default/ft:again"]);
}
