//! A real program, `tests/fixtures/command_trainer.py`, on a tiny base model.

use super::*;
use crate::gguf::{self, Tensor, Value};
use crate::{Hyperparameters, Method};
use std::cell::Cell;

const WIDTH: usize = 8;

fn tensor<'a>(name: &str, rows: usize, values: &'a [f32]) -> Tensor<'a> {
    Tensor { name: name.to_owned(), shape: [rows, WIDTH], values }
}

/// A model of llama's architecture with two layers, as far as an adapter needs it.
fn base(folder: &Path) -> PathBuf {
    let path = folder.join("base.gguf");
    let sizes =
        [("embedding_length", WIDTH), ("attention.head_count", 2), ("block_count", 2), ("feed_forward_length", 16), ("context_length", 64)];
    let mut metadata = vec![("general.architecture", Value::Text("llama".into()))];
    let names: Vec<String> = sizes.iter().map(|(name, _)| format!("llama.{name}")).collect();
    metadata.extend(names.iter().zip(sizes).map(|(name, (_, size))| (name.as_str(), Value::Whole(size as u64))));
    let (embedding, matrix) = (vec![0.5; 10 * WIDTH], vec![0.25; WIDTH * WIDTH]);
    let tensors = [
        tensor("token_embd.weight", 10, &embedding),
        tensor("blk.0.attn_q.weight", WIDTH, &matrix),
        tensor("blk.1.attn_q.weight", WIDTH, &matrix),
    ];
    gguf::write(&path, &metadata, &tensors).unwrap();
    path
}

fn settings(mode: &str) -> CommandSettings {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/command_trainer.py");
    CommandSettings {
        program: "python3".into(),
        arguments: vec![script.display().to_string(), mode.into(), WIDTH.to_string(), "1".into()],
        environment: vec![("PATH".into(), std::env!("PATH").into())],
        timeout: Duration::from_secs(60),
        output_bytes: 1 << 20,
        grace: Duration::from_secs(10),
    }
}

fn request(folder: &Path, validation: bool) -> TrainingRequest {
    let rows = folder.join("rows.jsonl");
    std::fs::write(&rows, "{\"messages\": []}\n".repeat(12)).unwrap();
    std::fs::create_dir_all(folder.join("run")).unwrap();
    TrainingRequest {
        method: Method::Supervised,
        validation_file: validation.then(|| rows.clone()),
        training_file: rows,
        hyperparameters: Hyperparameters { n_epochs: 2, batch_size: 4, learning_rate_multiplier: 2.0, ..Hyperparameters::default() },
        folder: folder.join("run"),
    }
}

fn train(
    mode: &CommandSettings,
    base: Option<PathBuf>,
    request: &TrainingRequest,
    command: &dyn Fn() -> Command,
) -> (Result<Outcome, TrainError>, Vec<Progress>) {
    let mut told = Vec::new();
    let outcome = CommandTrainer::new("tiny", base, mode.clone()).train(request, command, &mut |progress| told.push(progress));
    (outcome, told)
}

fn steps(told: &[Progress]) -> Vec<u64> {
    told.iter().filter_map(|progress| if let Progress::Step { step, .. } = progress { Some(*step) } else { None }).collect()
}

#[test]
fn a_program_trains_and_its_adapter_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let base = base(folder.path());
    let request = request(folder.path(), true);
    let (outcome, told) = train(&settings("fine"), Some(base.clone()), &request, &|| Command::Go);
    let outcome = outcome.unwrap();
    assert_eq!((outcome.end, outcome.steps, outcome.trained_tokens), (End::Finished, 6, 60));
    let Progress::Started { total_steps, resumed_at, rows, learning_rate, parameters, .. } = told[0] else { panic!("{told:?}") };
    assert_eq!((total_steps, resumed_at, rows, learning_rate, parameters), (6, 0, 12, 1e-3, 32));
    assert_eq!(steps(&told), [1, 2, 3, 4, 5, 6]);
    let Progress::Step { train_loss, train_mean_token_accuracy, epoch, tokens, .. } = told[4] else { panic!("{told:?}") };
    assert_eq!((train_loss, train_mean_token_accuracy, epoch, tokens), (1.0, 0.75, 2, 10));
    assert_eq!(told.last(), Some(&Progress::Validation { step: 6, loss: 0.5, mean_token_accuracy: 0.75, full: true }));
    let adapter = outcome.adapter.clone().unwrap();
    let (pairs, rank, alpha) = adapter_file::read(&adapter).unwrap();
    assert_eq!((pairs.len(), pairs[0].layer, rank, alpha), (1, 1, 2, 4.0));
    assert!(!request.folder.join(OUTPUT).exists(), "what the program wrote is not kept twice");
    // A server that was killed before it noted the model asks again: nothing runs.
    let (again, told) = train(&settings("exit"), Some(base), &request, &|| panic!("there is no step"));
    assert_eq!((again.unwrap(), told.len()), (outcome, 0));
}

#[test]
fn without_a_file_of_the_base_the_adapter_stays_as_peft_saved_it() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), false);
    let adapter = train(&settings("fine"), None, &request, &|| Command::Go).0.unwrap().adapter.unwrap();
    let mut names: Vec<_> = std::fs::read_dir(adapter).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn called_off_nothing_of_the_program_is_left_running() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), false);
    let child = request.folder.join(OUTPUT).join("child.pid");
    let runs = || std::fs::read_to_string(&child).ok().and_then(|text| text.parse::<u32>().ok());
    let began = Instant::now();
    let (outcome, _) = train(&settings("child"), None, &request, &|| if runs().is_some() { Command::Cancel } else { Command::Go });
    assert_eq!(outcome.unwrap().end, End::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(20));
    let left = format!("/proc/{}/stat", runs().unwrap());
    let gone = || std::fs::read_to_string(&left).map_or(true, |text| text.contains(") Z "));
    assert!(
        (0..100).any(|_| gone() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }),
        "what it started runs on"
    );
}

#[test]
fn paused_it_saves_its_work_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let base = base(folder.path());
    let request = request(folder.path(), false);
    let heard = Cell::new(0);
    let mut told = Vec::new();
    let trainer = CommandTrainer::new("tiny", Some(base), settings("slow"));
    let outcome = trainer.train(&request, &|| if heard.get() >= 2 { Command::Pause } else { Command::Go }, &mut |progress| {
        heard.set(heard.get() + u64::from(matches!(progress, Progress::Step { .. })));
        told.push(progress);
    });
    assert_eq!((outcome.unwrap().end, steps(&told)), (End::Paused, vec![1, 2]));
    let mut told = Vec::new();
    let outcome = trainer.train(&request, &|| Command::Go, &mut |progress| told.push(progress)).unwrap();
    // It did one more step, or none, while it was told to stop.
    let went_on = steps(&told);
    assert!(went_on[0] == 3 || went_on[0] == 4, "{went_on:?}");
    assert_eq!((went_on.last(), outcome.end, outcome.steps), (Some(&6), End::Finished, 6));
}

#[test]
fn what_goes_wrong_is_said_and_nothing_runs_on() {
    let short = CommandSettings { timeout: Duration::from_millis(300), ..settings("child") };
    let missing = CommandSettings { program: "no-such-trainer".into(), ..settings("fine") };
    for (settings, words) in [
        (settings("exit"), "failed (exit status: 3)"),
        (settings("error"), "says: there is no GPU here"),
        (settings("loud"), "said more than 1048576 bytes"),
        (settings("nan"), "the loss is NaN at step 2"),
        (settings("escape"), "is not in its output folder"),
        (settings("silent"), "without saying where its adapter is"),
        (short, "did not end within 0 s"),
        (missing, "cannot be started"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let base = base(folder.path());
        let (outcome, _) = train(&settings, Some(base), &request(folder.path(), false), &|| Command::Go);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        // Words for the log, not for a client.
        assert!(!error.contains("Traceback") && !error.contains("/tmp"), "{error}");
    }
}

#[test]
fn the_program_sees_the_environment_that_it_is_given_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo "{\"error\": \"$(env | cut -d= -f1 | tr '\n' ' ')\"}"; exit 1"#;
    let settings = CommandSettings { program: "sh".into(), arguments: vec!["-c".into(), script.into()], ..settings("fine") };
    let (outcome, _) = train(&settings, None, &request(folder.path(), false), &|| Command::Go);
    let error = outcome.unwrap_err().to_string();
    // The shell's own.
    let names: Vec<&str> =
        error.rsplit("says: ").next().unwrap().split_whitespace().filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
    assert_eq!(names, ["PATH"], "{error}");
}

#[test]
fn what_a_killed_server_left_running_is_ended_first() {
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), false);
    let mut left = std::process::Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", left.id())).unwrap();
    let began = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
    let note = |began: &str| format!("{{\"group\": {}, \"began\": \"{began}\"}}", left.id());
    // Another process with the same number is left alone.
    std::fs::write(request.folder.join("process.json"), note("1")).unwrap();
    process::end_leftover(&request.folder);
    std::fs::write(request.folder.join("process.json"), note(&began)).unwrap();
    assert!(left.try_wait().unwrap().is_none());
    train(&settings("fine"), None, &request, &|| Command::Go).0.unwrap();
    assert!(!left.wait().unwrap().success());
    assert!(!request.folder.join("process.json").exists());
}
