//! Fine-tuning through the official SDKs and the command line, with the trainer of this process.

use super::conformance::{async_openai, held_by_the_page};
use super::support::{Server, groundtone, run, run_json, small_shop, wait_for};
use groundtone_testkit::{SHOP_BASE as BASE, SHOP_QUICK as QUICK, SHOP_TRAINED as TRAINED, shop_webhook, tuning_shop};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A shop that trains.
fn shop(folder: &Path, more: &str) {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    std::fs::write(folder.join("groundtone.toml"), tuning_shop(more)).unwrap();
}

fn python(script: &str, server: &Server, arguments: &[&str]) -> Output {
    let packages = std::env::var("GROUNDTONE_TEST_PYTHONPATH").expect("GROUNDTONE_TEST_PYTHONPATH names the openai package: run ./gt test");
    let script = root().join("tests/python").join(script);
    let mut command = Command::new("python3");
    command.arg(script).arg(format!("{}/v1", server.address)).args(arguments).env("PYTHONPATH", packages);
    command.output().unwrap()
}

#[test]
fn openai_python_tunes_as_it_is_used_to() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    shop(folder.path(), &shop_webhook(port));
    let server = Server::start_with(folder.path(), &["serve"], &[("HOOK_SECRET", SECRET)]);
    let output = python("conformance_tuning.py", &server, &[BASE, &port.to_string(), SECRET]);
    held_by_the_page(&output, "openai-python (tuning)", 60);
}

#[test]
fn openai_node_tunes_as_it_is_used_to() {
    let Some(packages) = std::env::var_os("GROUNDTONE_TEST_NODEPATH").map(PathBuf::from) else {
        println!("skipped: GROUNDTONE_TEST_NODEPATH is not set, because node is not on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path(), QUICK);
    let server = Server::start(folder.path(), &["serve"]);
    let script = root().join("tests/node/conformance_tuning.mjs");
    let output = Command::new("node").arg(script).arg(packages).arg(format!("{}/v1", server.address)).arg(BASE).output().unwrap();
    held_by_the_page(&output, "openai-node (tuning)", 12);
}

#[test]
fn async_openai_tunes_as_it_is_used_to() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path(), QUICK);
    let server = Server::start(folder.path(), &["serve"]);
    let output = async_openai(&["tuning", &format!("{}/v1", server.address), BASE]);
    held_by_the_page(&output, "async-openai (tuning)", 35);
}

#[test]
fn the_four_stages_of_the_guide_run_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    // The upper half of the layers, faster: a test of the way, not of the trainer.
    shop(folder.path(), "trained_layers = 15\nlearning_rate_multiplier = 2.0\n");
    let server = Server::start(folder.path(), &["serve"]);
    let output = python("four_stages.py", &server, &["unused", BASE]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let count = |name: &str| result[name].as_u64().unwrap();
    assert!(count("tuned") * 10 >= count("held_out") * 8, "{result}");
    assert!(count("tuned") > count("untuned") + count("held_out") / 4, "{result}");
}

fn rows(folder: &Path, count: usize) -> String {
    let row = |number: usize| {
        let label = ["refund", "shipping", "other"][number % 3];
        let mut messages =
            vec![json!({"role": "user", "content": format!("Ticket {number}")}), json!({"role": "assistant", "content": label})];
        // Rows of every shape: with a system text of their own, and with an earlier turn.
        if number % 4 == 1 {
            messages.insert(0, json!({"role": "system", "content": "Sort the ticket. Grüße 🚲!"}));
        }
        if number % 5 == 2 {
            let earlier = [
                json!({"role": "user", "content": "Are you there?"}),
                json!({"role": "assistant", "content": "Yes, at your service.\nAlways."}),
            ];
            messages.splice(0..0, earlier);
        }
        json!({"messages": messages}).to_string() + "\n"
    };
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, (0..count).map(row).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn tune_creates_follows_and_lists_jobs_over_the_api() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path(), QUICK);
    let server = Server::start(folder.path(), &["serve"]);
    let rows = rows(folder.path(), 12);
    let url = format!("{}/v1", server.address);
    // By its address, as any other server.
    let create =
        ["tune", "--url", &url, "create", &rows, "--model", BASE, "--epochs", "1", "--batch-size", "4", "--metadata", "team=a", "--watch"];
    let output = run(folder.path(), &create);
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
    assert!(
        told.contains("Step 3/3: training loss=") && told.contains(". training loss") && said.contains("succeeded: ft:gpt-4o-mini"),
        "{told}{said}"
    );
    // By the data directory that it holds.
    let jobs = run_json(folder.path(), &["tune", "list", "--json"]);
    let job = &jobs[0];
    assert_eq!((&job["status"], &job["metadata"]["team"]), (&json!("succeeded"), &json!("a")));
    // What it was trained on is what was estimated before.
    let trained = job["trained_tokens"].as_f64().unwrap();
    let estimated = run_json(folder.path(), &["dataset", "stats", &rows, "--model", "local", "--epochs", "1", "--json"]);
    let estimated = estimated["cost"]["billed_tokens"].as_f64().unwrap();
    assert!(trained > 0.0 && (estimated / trained - 1.0).abs() <= 0.02, "{estimated} tokens estimated, {trained} trained");
    let id = job["id"].as_str().unwrap();
    let watched = run(folder.path(), &["tune", "watch", id, "--json"]);
    let watched = String::from_utf8_lossy(&watched.stdout).into_owned();
    let lines: Vec<Value> = watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["object"], &lines.last().unwrap()["id"]), (&json!("fine_tuning.job.event"), &json!(id)));
    let refused = run(folder.path(), &["tune", "cancel", id]);
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("a job that is succeeded cannot be cancelled"), "{refused}");
    let long = run_json(folder.path(), &["tune", "create", &rows, "--model", BASE, "--epochs", "50", "--json"]);
    let long = long["id"].as_str().unwrap();
    wait_for("the training", || run_json(folder.path(), &["tune", "list", "--json"])[0]["status"] == "running");
    let paused = run_json(folder.path(), &["tune", "pause", long, "--json"]);
    assert_eq!(paused["groundtone"]["status"], "paused");
    assert_ne!(run_json(folder.path(), &["tune", "resume", long, "--json"])["groundtone"]["status"], "paused");
    assert_eq!(run_json(folder.path(), &["tune", "cancel", long, "--json"])["status"], "cancelled");
    let over = run(folder.path(), &["tune", "watch", long]);
    assert!(!over.status.success() && String::from_utf8_lossy(&over.stderr).contains("is cancelled"));
}

#[test]
fn what_an_account_has_is_taken_along_and_answers_under_its_old_name() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path(), QUICK);
    let server = Server::start(folder.path(), &["serve"]);
    let rows = rows(folder.path(), 12);
    let job = run_json(folder.path(), &["tune", "create", &rows, "--model", BASE, "--epochs", "1", "--watch", "--json"]);
    let (id, model) = (job["id"].as_str().unwrap(), job["fine_tuned_model"].as_str().unwrap());
    let questions = folder.path().join("questions.jsonl");
    std::fs::write(&questions, "{\"question\": \"Ticket 1\"}\n").unwrap();
    let out = folder.path().join("rescued");
    let import = ["tune", "import", "--out", out.to_str().unwrap(), "--questions", questions.to_str().unwrap(), "--json"];
    let expected = json!({"out": out, "models": 1, "jobs": 1, "answers": 1, "missing": []});
    assert_eq!(run_json(folder.path(), &import), expected);
    assert_eq!(run_json(folder.path(), &import), expected, "nothing is asked twice");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let inventory: Value = serde_json::from_str(&read("inventory.json")).unwrap();
    assert_eq!((&inventory[0]["model"], &inventory[0]["shutdown_date"]), (&json!(model), &json!("2027-01-14")));
    assert!(inventory[0]["days_left"].is_i64());
    assert_eq!(read(&format!("jobs/{id}/training.jsonl")), std::fs::read_to_string(&rows).unwrap());
    assert!(read(&format!("jobs/{id}/metrics-0.csv")).starts_with("step,train_loss"));
    assert!(read(&format!("jobs/{id}/events.jsonl")).lines().last().unwrap().contains("successfully completed"));
    assert!(read("golden.jsonl").contains(model));
    let old = "ft:gpt-4o-mini-2024-07-18:acme::AbC12345";
    let ask = json!({"model": old, "messages": [{"role": "user", "content": "Ticket 1"}], "max_tokens": 4});
    assert_eq!(server.json("POST", "/v1/chat/completions", &ask).0, 404);
    run_json(folder.path(), &["tune", "alias", old, model, "--json"]);
    let (status, answer) = server.json("POST", "/v1/chat/completions", &ask);
    assert_eq!((status, &answer["model"]), (200, &json!(old)), "{answer}");
    assert_eq!(server.json("DELETE", &format!("/v1/groundtone/aliases/{old}"), &Value::Null).0, 200);
    assert_eq!(server.json("POST", "/v1/chat/completions", &ask).0, 404);
}

#[test]
fn a_model_that_was_trained_here_is_a_variants_model_and_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shop(folder, QUICK);
    let server = Server::start(folder, &["serve"]);
    let rows = rows(folder, 12);
    let job = run_json(folder, &["tune", "create", &rows, "--model", BASE, "--epochs", "1", "--watch", "--json"]);
    let model = job["fine_tuned_model"].as_str().unwrap();
    run_json(folder, &["tune", "alias", "voice", model, "--json"]);
    server.stop();
    let settings = std::fs::read_to_string(folder.join("groundtone.toml")).unwrap();
    let configure = |tuned: &str| {
        let variants = format!("[gate]\nthreshold = 0.0\n[variants.tuned-rag]\nmodel = \"{tuned}\"\n[variants.tuned]\nmodel = \"voice\"\n");
        std::fs::write(folder.join("groundtone.toml"), format!("{settings}{variants}")).unwrap();
    };
    configure("ft:gpt-4o-mini-2024-07-18:default::nobody00");
    let refused = String::from_utf8_lossy(&run(folder, &["serve", "--port", "0"]).stderr).into_owned();
    assert!(
        refused.contains("variant `tuned-rag`") && refused.contains("there is no model `ft:gpt-4o-mini-2024-07-18:default::nobody00`"),
        "{refused}"
    );
    configure(model);
    let server = Server::start(folder, &["serve"]);
    let ask = |name: &str| {
        let body = json!({"model": name, "messages": [{"role": "user", "content": "How long can I send it back?"}], "max_tokens": 4});
        let (status, answer) = server.json("POST", "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let about = &answer["groundtone"];
        (about["variant"].clone(), about["model"].clone(), !about["sources"].as_array().unwrap().is_empty())
    };
    assert_eq!(ask("shop"), (json!("rag"), json!(TRAINED), true));
    assert_eq!(ask("shop:tuned-rag"), (json!("tuned-rag"), json!(model), true));
    assert_eq!(ask("shop:tuned"), (json!("tuned"), json!(model), false), "an alias stands for it");
    let status = run_json(folder, &["release", "promote", "tuned-rag", "--force", "tuned-rag", "--reason", "a story", "--json"]);
    assert_eq!(status["releases"][0]["model"], json!(model));
    assert_eq!(ask("shop"), (json!("tuned-rag"), json!(model), true));
    // What answers is not deleted, and without a server the same variants answer.
    let (code, refused) = server.json("DELETE", &format!("/v1/models/{model}"), &Value::Null);
    assert_eq!((code, &refused["error"]["code"]), (409, &json!("model_in_use")), "{refused}");
    server.stop();
    let answer = run_json(folder, &["ask", "How long can I send it back?", "--json"]);
    assert_eq!(answer["model"], json!(TRAINED), "the configuration's own variant: releases belong to the server");
}

/// The real trainer, killed at instants of its life, beside the same job that nobody disturbed.
#[test]
fn a_training_that_is_killed_ends_as_it_would_have() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path(), QUICK);
    let rows = rows(folder.path(), 12);
    let create = |name: &str| {
        let arguments =
            ["tune", "create", &rows, "--model", BASE, "--epochs", "3", "--batch-size", "2", "--seed", "7", "--suffix", name, "--json"];
        run_json(folder.path(), &arguments)["id"].as_str().unwrap().to_owned()
    };
    let server = Server::start(folder.path(), &["serve"]);
    let (undisturbed, killed) = (create("calm"), create("killed"));
    let path = |id: &str| format!("/v1/fine_tuning/jobs/{id}");
    let step = |server: &Server| server.json("GET", &path(&killed), &Value::Null).1["groundtone"]["step"].as_u64().unwrap();
    wait_for("the first job", || server.json("GET", &path(&undisturbed), &Value::Null).1["status"] == "succeeded");
    wait_for("the second job's steps", || step(&server) >= 3);
    server.kill_hard();
    for until in [7, 12] {
        let server = Server::start(folder.path(), &["serve"]);
        wait_for("more steps", || step(&server) >= until);
        server.kill_hard();
    }
    let server = Server::start(folder.path(), &["serve"]);
    wait_for("the end", || server.json("GET", &path(&killed), &Value::Null).1["status"] == "succeeded");
    let result = |id: &str| {
        let (_, job) = server.json("GET", &path(id), &Value::Null);
        assert_eq!(job["result_files"].as_array().unwrap().len(), 1);
        let file = format!("/v1/files/{}/content", job["result_files"][0].as_str().unwrap());
        (server.request("GET", &file, &[("accept", "text/csv")], "").2, job["trained_tokens"].clone())
    };
    let (calm, disturbed) = (result(&undisturbed), result(&killed));
    assert_eq!(calm.0.lines().count(), 19, "{}", calm.0);
    assert_eq!(calm, disturbed, "the same losses at every step");
    let (_, models) = server.json("GET", "/v1/models", &Value::Null);
    let tuned = models["data"].as_array().unwrap().iter().filter(|model| model["id"].as_str().unwrap().starts_with("ft:")).count();
    assert_eq!(tuned, 2);
}

#[test]
fn tune_says_what_to_do_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let output = groundtone(folder.path(), &["tune", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("no server runs on") && said.contains("hint: start one with `groundtone serve`, or name one with --url"),
        "{said}"
    );
}
