//! The life of jobs: the real catalog, files and scheduler around a trainer that counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "the modules of one test binary use each other")]

mod rig;

use groundtone_catalog::{JobStatus, Page};
use groundtone_tuning::jobs::{JobsError, NewJob};
use groundtone_types::{ErrorKind, Tenant};
use rig::{Options, Rig, new_job};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_a_model_a_result_and_a_story() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    rig.gate.allow(100);
    let (file, validation) = (rig.rows(12).await, rig.rows(2).await);
    let new = NewJob { validation_file: Some(validation), ..new_job(&file, 2) };
    let created = rig.jobs.create(&rig.tenant, new, None).await.unwrap();
    assert_eq!((created.status, created.used, created.step), (JobStatus::ValidatingFiles, None, 0));
    let done = rig.until(&created.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!((done.step, done.total_steps, done.trained_tokens, done.finished_at), (6, Some(6), Some(240), Some(1_000)));
    let (model, id) = (&done.model_name, &done.id);
    assert!(model.starts_with("ft:gpt-4o-mini:default:voice:") && model.len() == "ft:gpt-4o-mini:default:voice:".len() + 8, "{model}");
    let expected = [
        format!("Created fine-tuning job: {id}"),
        format!("Validating training file: {file}"),
        "Files validated, moving job to queued state: 12 rows, 120 tokens an epoch".into(),
        "Fine-tuning job started".into(),
        "Training 12 rows in 6 steps; learning rate 0.0002 (1 times the default), 1000 parameters".into(),
        "Step 1/6: training loss=4.00".into(),
        "Step 2/6: training loss=2.00".into(),
        "Step 3/6: training loss=1.33, full validation loss=0.50".into(),
        "Checkpoint created at step 3".into(),
        "Step 4/6: training loss=1.00".into(),
        "Step 5/6: training loss=0.80".into(),
        "Step 6/6: training loss=0.67, full validation loss=0.50".into(),
        "Checkpoint created at step 6".into(),
        format!("New fine-tuned model created: {model}"),
        "The job has successfully completed".into(),
    ];
    assert_eq!(rig.messages(id).await, expected);
    let (result, csv) = rig.files.read(&rig.tenant, &done.result_file).await.unwrap().unwrap();
    assert_eq!((result.purpose.as_str(), result.filename.as_str()), ("fine-tune-results", "step_metrics.csv"));
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!((csv.lines().count(), csv.lines().nth(3)), (7, Some("3,1.33333,0.66667,0.50000,0.75000")));
    assert!(rig.jobs.chat_model(&rig.tenant, model).await.unwrap().is_some());
    assert!(rig.jobs.chat_model(&rig.tenant, &format!("{model}:ckpt-step-3")).await.unwrap().is_some());
    assert!(rig.jobs.chat_model(&Tenant::new("other").unwrap(), model).await.unwrap().is_none(), "another tenant's model is nobody's");
    assert!(rig.jobs.delete_model(&rig.tenant, model).await.unwrap() && !rig.jobs.delete_model(&rig.tenant, model).await.unwrap());
    assert!(rig.jobs.chat_model(&rig.tenant, model).await.unwrap().is_none());
    assert_eq!(rig.shelf.loaded.lock().unwrap().clone(), [format!("default/{model}:ckpt-step-3")]);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_three_epochs_stay_and_their_models_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    rig.gate.allow(100);
    let job = rig.create(5).await;
    rig.until(&job.id, "success", |job| job.status == JobStatus::Succeeded).await;
    let page = Page { after: None, limit: 10, ascending: false };
    let steps: Vec<u64> =
        rig.catalog.checkpoints(&rig.tenant, &job.id, page).await.unwrap().into_iter().map(|checkpoint| checkpoint.metrics.step).collect();
    assert_eq!(steps, [15, 12, 9]);
    let models = rig.catalog.models_of_job(&rig.tenant, &job.id).await.unwrap();
    assert_eq!(models.len(), 4, "three checkpoints and the model");
    for model in models {
        assert!(rig.jobs.chat_model(&rig.tenant, &model.id).await.unwrap().is_some(), "{}", model.id);
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_fail_the_job_and_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let good = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}\n".repeat(10);
    for (text, code, message) in [
        ("{\"messages\": [1]}\n".repeat(3), "invalid_n_examples", "Training file has 3 example(s), but must have at least 10 examples"),
        (format!("{good}{{\"messages\": []}}\n"), "invalid_training_file", "Invalid file format. Line 11: there are no messages"),
        (
            format!("{good}nonsense\n"),
            "invalid_training_file",
            "Invalid file format. Line 11 is not JSON: expected ident at line 1 column 2.",
        ),
    ] {
        let file = rig.file(&text).await;
        let job = rig.jobs.create(&rig.tenant, new_job(&file, 1), None).await.unwrap();
        let failed = rig.until(&job.id, "failure", |job| job.status == JobStatus::Failed).await;
        let error = failed.error.unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str(), error.param.as_deref()), (code, message, Some("training_file")));
        rig.until_gone(&job.id).await;
    }
    rig.gate.allow(100);
    let file = rig.file(&good.replace("\"x\"", "\"explode\"")).await;
    let job = rig.jobs.create(&rig.tenant, new_job(&file, 1), None).await.unwrap();
    let failed = rig.until(&job.id, "failure", |job| job.status == JobStatus::Failed).await;
    assert_eq!(failed.error.unwrap().code, "training_diverged");
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_trained_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options { most_open_jobs: 1, ..Options::default() }).await;
    let file = rig.rows(12).await;
    let refused = |new: NewJob| {
        let rig = &rig;
        async move {
            let error = rig.jobs.create(&rig.tenant, new, None).await.unwrap_err();
            (error.kind(), error.to_string())
        }
    };
    let (kind, text) = refused(NewJob { model: "gpt-9".into(), ..new_job(&file, 1) }).await;
    assert_eq!(kind, ErrorKind::InvalidRequest);
    assert_eq!(text, "model `gpt-9` is not available for fine-tuning here: `tuning.base_models` has `gpt-4o-mini`, `counter`");
    let (_, text) = refused(new_job("file-nobody", 1)).await;
    assert_eq!(text, "invalid training_file: there is no file `file-nobody`");
    let (_, text) = refused(NewJob { validation_file: Some(file.clone()), ..new_job(&file, 1) }).await;
    assert!(text.contains("must be another file"), "{text}");
    let job = rig.create(1).await;
    let (kind, _) = refused(new_job(&file, 1)).await;
    assert_eq!(kind, ErrorKind::Overloaded);
    rig.jobs.cancel(&rig.tenant, &job.id).await.unwrap();
    rig.create(1).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_does_not_fit_fails_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options { memory_bytes: 2 << 30, ..Options::default() }).await;
    let job = rig.create(1).await;
    let failed = rig.until(&job.id, "failure", |job| job.status == JobStatus::Failed).await;
    assert_eq!(failed.error.unwrap().code, "insufficient_memory");
    assert!(rig.trained().is_empty());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_trains_and_the_next_waits_for_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let (first, second) = (rig.create(1).await, rig.create(1).await);
    rig.gate.allow(1);
    let running = rig.until(&first.id, "the first step", |job| job.step == 1).await;
    // Two seconds a step, as the trainer says, and two steps are left.
    assert_eq!(running.estimated_finish, Some(1_004));
    rig.until(&second.id, "the queue", |job| job.status == JobStatus::Queued).await;
    rig.gate.allow(2);
    let done = rig.until(&first.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(done.estimated_finish, None);
    rig.until(&second.id, "its turn", |job| job.status == JobStatus::Running).await;
    rig.gate.allow(3);
    rig.until(&second.id, "success", |job| job.status == JobStatus::Succeeded).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_called_off_within_a_step_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let job = rig.create(2).await;
    rig.gate.allow(4);
    rig.until(&job.id, "the fourth step", |job| job.step == 4).await;
    let cancelled = rig.jobs.cancel(&rig.tenant, &job.id).await.unwrap();
    assert_eq!((cancelled.status, cancelled.finished_at), (JobStatus::Cancelled, Some(1_000)));
    rig.gate.allow(100);
    let next = rig.create(1).await;
    rig.until(&next.id, "the next job", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(rig.trained(), [1, 2, 3, 4, 1, 2, 3], "no step after the call");
    rig.until_gone(&job.id).await;
    assert!(rig.catalog.models_of_job(&rig.tenant, &job.id).await.unwrap().is_empty(), "its checkpoints do not answer");
    for again in [
        rig.jobs.cancel(&rig.tenant, &job.id).await,
        rig.jobs.pause(&rig.tenant, &job.id).await,
        rig.jobs.resume(&rig.tenant, &job.id).await,
    ] {
        let error = again.unwrap_err();
        assert!(matches!(error, JobsError::Status { .. }) && error.kind() == ErrorKind::InvalidRequest, "{error}");
    }
    assert!(matches!(rig.jobs.cancel(&Tenant::new("other").unwrap(), &next.id).await, Err(JobsError::NotFound { .. })));
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_gives_way_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let (first, second) = (rig.create(2).await, rig.create(1).await);
    rig.gate.allow(2);
    rig.until(&first.id, "the second step", |job| job.step == 2).await;
    assert_eq!(rig.jobs.pause(&rig.tenant, &first.id).await.unwrap().status, JobStatus::Paused);
    rig.until(&second.id, "its turn", |job| job.status == JobStatus::Running).await;
    rig.gate.allow(3);
    rig.until(&second.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(rig.job(&first.id).await.status, JobStatus::Paused);
    assert_eq!(rig.jobs.resume(&rig.tenant, &first.id).await.unwrap().status, JobStatus::Queued);
    rig.gate.allow(4);
    rig.until(&first.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(rig.trained(), [1, 2, 1, 2, 3, 3, 4, 5, 6], "no step twice");
    let messages = rig.messages(&first.id).await;
    assert!(messages.contains(&"Fine-tuning job paused".to_owned()) && messages.iter().any(|text| text.contains("going on after step 2")));
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_paused_and_resumed_at_once_is_started_once() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options { parallel: 2, ..Options::default() }).await;
    let job = rig.create(3).await;
    rig.gate.allow(1);
    rig.until(&job.id, "the first step", |job| job.step == 1).await;
    for _ in 0..5 {
        rig.jobs.pause(&rig.tenant, &job.id).await.unwrap();
        rig.jobs.resume(&rig.tenant, &job.id).await.unwrap();
        rig.until(&job.id, "its turn", |job| job.status == JobStatus::Running).await;
    }
    rig.gate.allow(8);
    rig.until(&job.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(rig.trained(), (1..=9).collect::<Vec<_>>());
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_loses_no_step() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let job = rig.create(2).await;
    rig.gate.allow(3);
    rig.until(&job.id, "the third step", |job| job.step == 3).await;
    rig.close().await;
    let rig = Rig::open(folder.path(), Options::default()).await;
    rig.gate.allow(3);
    let done = rig.until(&job.id, "success", |job| job.status == JobStatus::Succeeded).await;
    assert_eq!(rig.trained(), (1..=6).collect::<Vec<_>>());
    assert_eq!(done.model_name, job.model_name);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_deleted_are_trained_on_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    let job = rig.create(1).await;
    rig.until(&job.id, "validation", |job| job.used.is_some()).await;
    assert!(rig.files.remove(&rig.tenant, &job.training_file).await.unwrap());
    rig.gate.allow(10);
    rig.until(&job.id, "success", |job| job.status == JobStatus::Succeeded).await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_until_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), Options::default()).await;
    rig.receiver.refuse.store(1, Ordering::SeqCst);
    rig.gate.allow(10);
    let job = rig.create(1).await;
    rig.until(&job.id, "the first attempt", |job| job.webhook.as_ref().is_some_and(|webhook| webhook.attempts == 1)).await;
    rig.clock.fetch_add(5, Ordering::SeqCst);
    // Anything that happens wakes the scheduler.
    rig.create(1).await;
    rig.until(&job.id, "the second attempt", |job| job.webhook.is_none() && job.status == JobStatus::Succeeded).await;
    let got = rig.receiver.got.lock().unwrap().clone();
    assert_eq!((got[0].id.as_str(), got[0].timestamp), (got[1].id.as_str(), 1_000));
    assert_eq!(got[1].timestamp, 1_005);
    let body: serde_json::Value = serde_json::from_str(&got[1].body).unwrap();
    assert_eq!((body["type"].as_str(), body["data"]["id"].as_str()), (Some("fine_tuning.job.succeeded"), Some(job.id.as_str())));
    rig.close().await;
}

/// Jobs of the story below, and rows of each.
const JOBS: usize = 8;
const ROWS: usize = 40;
const EPOCHS: u32 = 3;
const STEPS: u64 = 30;

/// The process that is killed: makes the jobs that are not there yet, and trains until all are over. Does nothing where it is not started by the test below.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    let Some(folder) = std::env::var_os("GROUNDTONE_TEST_KILLED") else { return };
    let rig = Rig::open(folder.as_ref(), Options { pause: Duration::from_millis(1), ..Options::default() }).await;
    rig.gate.allow(u64::MAX / 2);
    let page = Page { after: None, limit: 1, ascending: true };
    let file = match rig.catalog.files(&rig.tenant, Some("fine-tune"), page).await.unwrap().pop() {
        Some(file) => file.id,
        None => rig.rows(ROWS).await,
    };
    let mut ids = Vec::new();
    for number in 0..JOBS {
        let key = format!("job-{number}");
        ids.push(rig.jobs.create(&rig.tenant, new_job(&file, EPOCHS), Some((&key, &file))).await.unwrap().id);
    }
    for id in ids {
        rig.until(&id, "the end", |job| job.status.is_over() && job.webhook.is_none()).await;
    }
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_leave_every_job_as_it_would_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_that_is_killed"]).env("GROUNDTONE_TEST_KILLED", folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Instants that look like chance and are the same every time (Knuth's multiplier).
    let mut chance = 20_261_127u64;
    let mut kills = 0;
    for _ in 0..50 {
        let mut process = child().spawn().unwrap();
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(10 + (chance >> 33) % 70));
        if process.try_wait().unwrap().is_none() {
            kills += 1;
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(child().status().unwrap().success());

    let rig = Rig::open(folder.path(), Options::default()).await;
    let page = Page { after: None, limit: 100, ascending: true };
    let jobs = rig.catalog.jobs(&rig.tenant, None, page).await.unwrap();
    assert_eq!(jobs.len(), JOBS, "each key made one job");
    for job in &jobs {
        assert_eq!((job.status, job.step, job.trained_tokens), (JobStatus::Succeeded, STEPS, Some(1200)), "{job:?}");
        let steps: Vec<u64> = rig.catalog.steps(&rig.tenant, &job.id).await.unwrap().iter().map(|step| step.step).collect();
        assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
        let (_, csv) = rig.files.read(&rig.tenant, &job.result_file).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(csv).unwrap().lines().count() as u64, STEPS + 1);
        assert_eq!(rig.catalog.models_of_job(&rig.tenant, &job.id).await.unwrap().len(), 4);
        assert_eq!(rig.catalog.checkpoints(&rig.tenant, &job.id, page).await.unwrap().len(), 3);
        assert!(rig.jobs.chat_model(&rig.tenant, &job.model_name).await.unwrap().is_some());
    }
    assert_eq!(rig.catalog.models(&rig.tenant).await.unwrap().len(), JOBS);
    let results = rig.catalog.files(&rig.tenant, Some("fine-tune-results"), page).await.unwrap();
    assert_eq!(results.len(), JOBS, "one result each");
    let trained = rig.trained().len() as u64;
    let least = JOBS as u64 * STEPS;
    assert!(
        (least..=least + kills * 5).contains(&trained),
        "{trained} steps for {least}, with {kills} kills and a checkpoint every 4 steps"
    );
    rig.close().await;
}
