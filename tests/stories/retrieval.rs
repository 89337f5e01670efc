//! Searching by metadata, follow-up questions, and the evaluation of retrieval, through the binary.

use super::support::{Server, run_failing, run_json, small_shop};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sample(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/kettlewren").join(path)
}

/// Whether a passage with these words of this document is among the snippets.
fn holds(found: &Value, document: &Value, words: &Value) -> bool {
    let words = words.as_str().unwrap();
    let shown = |hit: &Value| hit["document"] == *document && format!("{}{}", hit["text"], hit["heading_path"]).contains(words);
    found["hits"].as_array().unwrap().iter().any(shown)
}

/// How many follow-ups find their passage among the first two and the first five snippets, without and with what was said before.
#[test]
fn follow_ups_find_their_passage_and_other_questions_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run_json(folder.path(), &["ingest", sample("documents").to_str().unwrap(), "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let mut counts = [[0; 4]; 2];
    let mut totals = [0; 2];
    for question in lines(&sample("follow-ups.jsonl")) {
        let kind = usize::from(question["kind"] == "standalone");
        totals[kind] += 1;
        let roles = ["user", "assistant"].into_iter().cycle();
        let turns = question["history"].as_array().unwrap().iter().zip(roles);
        let history: Vec<Value> = turns.map(|(text, role)| json!({"role": role, "content": text})).collect();
        for (at, body) in
            [json!({"query": question["question"]}), json!({"query": question["question"], "history": history})].iter().enumerate()
        {
            for (deep, top_k) in [(0, 2), (1, 5)] {
                let mut body = body.clone();
                body["top_k"] = json!(top_k);
                let (status, found) = server.json("POST", "/v1/groundtone/search", &body);
                assert_eq!(status, 200, "{found}");
                let right = holds(&found, &question["document"], &question["must_contain"]);
                counts[kind][2 * at + deep] += usize::from(right);
                if !right && at == 1 && deep == 1 {
                    println!("missed: {} ({}): {}", question["id"], found["basis"], found["query"]);
                }
                if kind == 1 && at == 1 {
                    assert_eq!(found["query"], question["question"], "a question that stands for itself is left alone");
                }
            }
        }
    }
    let [[plain_2, plain_5, with_2, with_5], [alone_2, _, still_2, _]] = counts;
    println!("follow-ups, right passage among 2 and 5 of {}: as asked {plain_2}, {plain_5}; rewritten {with_2}, {with_5}", totals[0]);
    println!("standalone, right passage among 2 of {}: as asked {alone_2}, with history {still_2}", totals[1]);
    assert_eq!(totals, [40, 8]);
    assert!(with_2 >= plain_2 + 8 && with_5 >= 38 && with_5 >= plain_5 + 4, "{counts:?}");
    assert_eq!(alone_2, still_2);
}

#[test]
fn a_search_is_narrowed_by_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let record = |id: &str, text: &str, metadata: Value| json!({"id": id, "text": text, "metadata": metadata}).to_string();
    let records = [
        record("old", "The grinder costs 89 euro.", json!({"lang": "en", "date": "2024-05-01", "tags": ["price"]})),
        record("new", "The grinder costs 99 euro.", json!({"lang": "en", "date": "2026-05-01", "tags": ["price", "current"]})),
        record("german", "The grinder costs 99 euro, in German.", json!({"lang": "de"})),
    ];
    std::fs::write(folder.path().join("records.jsonl"), records.join("\n")).unwrap();
    let mut ingest = super::support::groundtone(folder.path(), &["ingest", "-"]);
    let output = ingest.stdin(std::fs::File::open(folder.path().join("records.jsonl")).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let search = |filter: &[&str]| -> Vec<String> {
        let mut arguments = vec!["search", "What does the grinder cost?", "--json", "--top-k", "10"];
        filter.iter().for_each(|filter| arguments.extend(["--filter", filter]));
        let found = run_json(folder.path(), &arguments);
        let mut documents: Vec<String> =
            found["hits"].as_array().unwrap().iter().map(|hit| hit["document"].as_str().unwrap().to_owned()).collect();
        documents.sort();
        documents
    };
    assert_eq!(search(&[]), ["german", "new", "old"]);
    assert_eq!(search(&["lang=de"]), ["german"]);
    assert_eq!(search(&["tags=price", r#"{"date": {"from": "2026-01-01"}}"#]), ["new"]);
    assert_eq!(search(&[r#"lang=["de","fr"]"#]), ["german"]);
    assert!(search(&["lang=fr"]).is_empty());
    let (text, code) = run_failing(folder.path(), &["search", "x", "--filter", r#"{"lang": []}"#]);
    insta::assert_snapshot!(text, @"error: `lang` in the filter: name 1 to 64 values");
    assert_eq!(code, 1);
}

/// Six documents and four questions.
fn beir(folder: &Path) -> std::path::PathBuf {
    let set = folder.join("set");
    std::fs::create_dir_all(set.join("qrels")).unwrap();
    let documents = [
        ("r", "Returns", "A grinder can be sent back within 45 days of delivery."),
        ("w", "Warranty", "The burr set is covered for 12 years."),
        ("h", "Hours", "The workshop in Graz opens at nine on Saturdays."),
        ("p", "", "The Alder hand grinder costs 89 euro."),
        ("s", "Shipping", "A parcel to Norway takes five to eight days."),
        ("c", "Cleaning", "Brush the burrs once a week and never wash them."),
    ];
    let corpus: Vec<String> =
        documents.iter().map(|(id, title, text)| json!({"_id": id, "title": title, "text": text}).to_string()).collect();
    let questions = [
        ("q1", "How long may I return it?"),
        ("q2", "How long are the burrs covered?"),
        ("q3", "price of the hand grinder"),
        ("q4", "nobody judged this"),
    ];
    let queries: Vec<String> = questions.iter().map(|(id, text)| json!({"_id": id, "text": text}).to_string()).collect();
    std::fs::write(set.join("corpus.jsonl"), corpus.join("\n")).unwrap();
    std::fs::write(set.join("queries.jsonl"), queries.join("\n")).unwrap();
    std::fs::write(set.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\nq1\tr\t1\nq2\tw\t1\nq3\tp\t1\n").unwrap();
    set
}

#[test]
fn a_beir_folder_is_measured_and_measured_again_from_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let set = beir(folder.path());
    let measure = || run_json(folder.path(), &["eval", "retrieval", "--json", set.to_str().unwrap(), "--resamples", "500"]);
    let report = measure();
    assert_eq!((&report["documents"], &report["questions"], &report["seed"]), (&json!(6), &json!(3), &json!(1)));
    for arm in ["bm25", "dense", "hybrid"] {
        for metric in ["ndcg_at_10", "recall_at_20", "mrr_at_10"] {
            let estimate = &report["arms"][arm][metric];
            let [low, value, high] = ["low", "value", "high"].map(|end| estimate[end].as_f64().unwrap());
            assert!(0.0 <= low && low <= value && value <= high && high <= 1.0, "{arm} {metric}: {estimate}");
        }
    }
    assert!(report["arms"]["hybrid"]["ndcg_at_10"]["value"].as_f64().unwrap() > 0.8, "{report}");
    assert_eq!(report["arms"]["dense"]["recall_at_20"]["value"], json!(1.0), "all six are among the first twenty");
    assert_eq!(report["left_out"]["hybrid-rerank"], json!("no reranker is configured (`reranker.kind`)"));
    let pairs: Vec<&str> = report["pairs"].as_array().unwrap().iter().map(|pair| pair["b"].as_str().unwrap()).collect();
    assert_eq!(pairs, ["bm25", "dense"]);
    assert!(report["pairs"][0]["ndcg_at_10"]["p"].as_f64().unwrap() > 0.0);
    assert_eq!(measure(), report, "the same from what is stored");
    std::fs::remove_file(set.join("queries.jsonl")).unwrap();
    let (text, code) = run_failing(folder.path(), &["eval", "retrieval", set.to_str().unwrap()]);
    insta::assert_snapshot!(text, @r"
    error: cannot read FOLDER/set/queries.jsonl: No such file or directory (os error 2)
    hint: a folder in BEIR's layout has corpus.jsonl, queries.jsonl and qrels/*.tsv
    ");
    assert_eq!(code, 1);
}

#[test]
fn a_cross_encoder_in_the_process_orders_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let documents = small_shop(path);
    run_json(path, &["ingest", documents.to_str().unwrap(), "--json"]);
    let plain = run_json(path, &["search", "How long can I send it back?", "--top-k", "5", "--json"]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/local/tests/fixtures/cross-encoders/one");
    let settings = |model: &Path| {
        let settings = format!("[reranker]\nkind = \"local\"\npath = \"{}\"\nmax_tokens = 64\n", model.display());
        std::fs::write(path.join("groundtone.toml"), settings).unwrap();
    };
    settings(&model);
    let found = run_json(path, &["search", "How long can I send it back?", "--top-k", "5", "--json"]);
    let scores: Vec<f64> = found["hits"].as_array().unwrap().iter().map(|hit| hit["arms"]["rerank"]["score"].as_f64().unwrap()).collect();
    assert!(scores.len() >= 4 && scores.is_sorted_by(|a, b| a >= b), "{found}");
    // Its weights are chance, and so is its order; how well a trained one orders is measured in docs/benchmarks.md.
    let order = |found: &Value| found["hits"].as_array().unwrap().iter().map(|hit| hit["id"].clone()).collect::<Vec<_>>();
    assert_ne!(order(&found), order(&plain));
    let report = run_json(path, &["eval", "retrieval", "--json", beir(path).to_str().unwrap(), "--resamples", "500"]);
    assert!(report["arms"]["hybrid-rerank"]["ndcg_at_10"]["value"].is_f64() && report["left_out"] == json!({}), "{report}");

    settings(&path.join("nowhere"));
    let (text, code) = run_failing(path, &["search", "anything"]);
    insta::assert_snapshot!(text, @r"
    error: nowhere failed: FOLDER/nowhere/model.onnx: No such file or directory (os error 2)
    hint: `reranker.path` is a folder with `model.onnx` and `tokenizer.json` of a cross-encoder
    ");
    assert_eq!(code, 1);
}

/// Questions about anything but tea and kettles.
const FOREIGN: [&str; 24] = [
    "Who won the chess championship in 1972?",
    "What is the boiling point of nitrogen?",
    "How do I file a tax return in Portugal?",
    "Which planets have rings?",
    "What does a passport cost?",
    "How deep is the Baltic Sea?",
    "When was the printing press invented?",
    "Can penguins fly?",
    "How do I change a bicycle tyre?",
    "What is the capital of Mongolia?",
    "Who wrote Moby Dick?",
    "How many bones has a cat?",
    "What is a derivative in calculus?",
    "Is the museum of modern art free?",
    "How do vaccines work?",
    "What is the fastest train in Japan?",
    "How do I prune an apple tree?",
    "Which languages are spoken in Peru?",
    "How long is a marathon?",
    "What causes the northern lights?",
    "Can I park in the city centre at night?",
    "Which guitar strings are best for jazz?",
    "How do I reset my router?",
    "Who painted the ceiling of the chapel?",
];

#[test]
fn a_gate_is_fitted_on_labelled_questions_and_closes_before_foreign_ones() {
    let folder = tempfile::tempdir().unwrap();
    run_json(folder.path(), &["ingest", sample("documents").to_str().unwrap(), "--json"]);
    let own = lines(&sample("questions.jsonl")).into_iter().map(|question| json!({"question": question["question"], "answerable": true}));
    let foreign = FOREIGN.iter().map(|question| json!({"question": question, "answerable": false}));
    let labelled: Vec<String> = own.chain(foreign).map(|row| row.to_string()).collect();
    let set = folder.path().join("labelled.jsonl");
    std::fs::write(&set, labelled.join("\n")).unwrap();
    let set = set.to_str().unwrap();
    let fitted = run_json(folder.path(), &["eval", "calibrate", "--set", set, "--keep", "1", "--json"]);
    println!("{fitted}");
    assert!(fitted["quality"]["auc"].as_f64().unwrap() > 0.95, "{fitted}");
    // Beside it the gate that is there by default: all 20 of its own questions go through, and most of the foreign ones do not.
    let now = &fitted["configured"];
    assert!(now["answerable_kept"]["value"] == 1.0 && now["abstention_recall"]["value"].as_f64().unwrap() > 0.8, "{now}");
    assert_eq!((&fitted["answerable"], &fitted["unanswerable"]), (&json!(20), &json!(24)));
    // What is printed without --json is a settings file as it is.
    let output = super::support::run(folder.path(), &["eval", "calibrate", "--set", set, "--keep", "1"]);
    std::fs::write(folder.path().join("groundtone.toml"), &output.stdout).unwrap();
    let verdict = |question: &str| run_json(folder.path(), &["search", question, "--json"])["verdict"].clone();
    assert_eq!(verdict("When does a gift card expire?")["answerable"], json!(true));
    assert_eq!(verdict("Which submarine dives deepest?")["answerable"], json!(false));
}

#[test]
fn labels_that_are_not_labels_are_named() {
    let folder = tempfile::tempdir().unwrap();
    run_json(folder.path(), &["ingest", small_shop(folder.path()).to_str().unwrap(), "--json"]);
    std::fs::write(folder.path().join("set.jsonl"), "{\"question\": \"x\", \"answerable\": true}\n{\"question\": \"y\"}\n").unwrap();
    let set = folder.path().join("set.jsonl");
    insta::assert_snapshot!(run_failing(folder.path(), &["eval", "calibrate", "--set", set.to_str().unwrap()]).0, @r#"
    error: FOLDER/set.jsonl:2: missing field `answerable` at line 1 column 17
    hint: each line is a question and its label: {"question": "...", "answerable": true}
    "#);
    std::fs::write(&set, "{\"question\": \"x\", \"answerable\": true}\n").unwrap();
    insta::assert_snapshot!(
        run_failing(folder.path(), &["eval", "calibrate", "--set", set.to_str().unwrap()]).0,
        @"error: a gate needs at least 20 questions that can be answered and as many that cannot; there are 1 and 0"
    );
}

#[test]
fn the_model_says_what_a_follow_up_means_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let meant = "Can I send the Heron kettle back after using it twice?";
    let upstream = runtime.block_on(ScriptedServer::start([Reply::Stream(vec![meant.to_owned()]), Reply::Silence]));
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"m\"\nurl = \"{}\"\nretries = 0\n[retrieval]\ncondense = true\ncondense_timeout_seconds = 1\n",
        upstream.base_url
    );
    std::fs::write(folder.path().join("groundtone.toml"), settings).unwrap();
    let server = Server::start(folder.path(), &["serve"]);
    let history = json!([{"role": "user", "content": "How much is the Heron kettle?"}, {"role": "assistant", "content": "149 euro."}]);
    let search = |query: &str| {
        let (status, found) = server.json("POST", "/v1/groundtone/search", &json!({"query": query, "history": history}));
        assert_eq!(status, 200, "{found}");
        (found["basis"].clone(), found["query"].as_str().unwrap().to_owned())
    };
    let unsure = "Can I send it back after using water twice?";
    assert_eq!(search(unsure), (json!("model"), meant.to_owned()));
    // One short call more, and no longer than its time limit: then the rules' guess is searched for.
    let began = Instant::now();
    let (basis, guess) = search(unsure);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(basis == "rule" && guess.contains("Heron"), "{guess}");
    assert_eq!(search("And the Swift?").0, json!("rule"));
    assert_eq!(upstream.requests().len(), 2, "where the rules are sure no model is asked");
    assert_eq!(upstream.requests()[0]["max_completion_tokens"], json!(48));
}
