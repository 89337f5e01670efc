//! Files of rows, uploads in parts, fine-tuning jobs, their checkpoints, and the models that they make.

use crate::{Api, Outcome, code, param, refused, run};
use async_openai::error::OpenAIError;
use async_openai::traits::RequestOptionsBuilder;
use async_openai::types::InputSource;
use async_openai::types::chat::{
    ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage, ChatCompletionRequestUserMessage, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs,
};
use async_openai::types::files::{
    CreateFileRequest, FileExpirationAfter, FileExpirationAfterAnchor, FileInput, FilePurpose, OpenAIFile, OpenAIFilePurpose,
};
use async_openai::types::finetuning::{
    BatchSize, Beta, CreateFineTuningCheckpointPermissionRequest, CreateFineTuningJobRequest, CreateFineTuningJobRequestArgs,
    FineTuneDPOHyperparameters, FineTuneDPOMethod, FineTuneMethod, FineTuneSupervisedHyperparameters, FineTuneSupervisedMethod,
    FineTuningIntegration, FineTuningJob, FineTuningJobCheckpointMetrics, FineTuningJobEvent, FineTuningJobEventType, FineTuningJobStatus,
    LearningRateMultiplier, Level, NEpochs,
};
use async_openai::types::uploads::{
    AddUploadPartRequest, CompleteUploadRequest, CreateUploadRequest, CreateUploadRequestArgs, UploadPurpose, UploadStatus,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server with one job that has trained in earnest; half of the cases look at what it left.
#[derive(Clone)]
struct Shop {
    api: Api,
    model: String,
    training: String,
    validation: String,
    /// As it was created, and as it ended.
    first: Arc<FineTuningJob>,
    done: Arc<FineTuningJob>,
    tuned: String,
}

pub async fn run_all(api: Api, model: &str) -> usize {
    let shop = match prepare(api, model).await {
        Ok(shop) => shop,
        Err(problem) => {
            eprintln!("FAILED the first job: {problem}");
            return 1;
        }
    };
    run!(shop;
        files_for_training,
        files_for_training_must_be_jsonl,
        files_listed_by_purpose,
        files_that_expire,
        uploads_in_the_order_that_is_said,
        uploads_with_a_checksum,
        uploads_must_be_as_long_as_they_said,
        uploads_cancelled,
        jobs_have_every_field_at_once,
        jobs_keep_what_they_were_made_with,
        jobs_of_preferences,
        jobs_of_an_unmapped_model_are_refused_with_the_list,
        jobs_of_files_that_are_not_there,
        jobs_with_fields_out_of_range,
        jobs_of_too_few_rows_fail,
        jobs_made_once_for_a_key,
        jobs_unknown,
        jobs_listed_page_by_page,
        jobs_found_by_their_notes,
        jobs_that_succeed_name_their_model,
        jobs_without_a_suffix_keep_both_colons,
        events_say_what_people_parse,
        events_have_numbers,
        events_until_a_page_is_empty,
        checkpoints_have_numbers_everywhere,
        checkpoints_of_a_job_without_any,
        results_come_as_base64,
        jobs_cancelled_while_they_run,
        jobs_that_are_over_answer_400,
        jobs_paused_and_resumed,
        models_that_were_tuned_are_listed,
        models_are_found_by_names_with_colons,
        models_that_were_tuned_answer,
        models_that_were_tuned_stream,
        models_as_they_were_after_an_epoch_answer,
        models_are_deleted,
        permissions_are_given_listed_and_taken,
        limit_null_as_a_batch_size,
        limit_checkpoints_without_some_metrics,
        limit_many_trained_tokens,
    )
}

fn row(number: usize) -> Value {
    let label = ["refund", "shipping", "other"][number % 3];
    json!({"messages": [
        {"role": "system", "content": "Label it."},
        {"role": "user", "content": format!("Ticket {number}")},
        {"role": "assistant", "content": label},
    ]})
}

fn preference(number: usize) -> Value {
    let answer = |text: &str| json!([{"role": "assistant", "content": text}]);
    json!({
        "input": {"messages": [{"role": "user", "content": format!("Ticket {number}")}]},
        "preferred_output": answer("refund"),
        "non_preferred_output": answer("I would think that this may be a refund."),
    })
}

fn jsonl(rows: impl Iterator<Item = Value>) -> Vec<u8> {
    rows.flat_map(|row| format!("{row}\n").into_bytes()).collect()
}

async fn upload(api: &Api, name: &str, content: Vec<u8>) -> Result<OpenAIFile, OpenAIError> {
    let file = FileInput::from_vec_u8(name.to_owned(), content);
    api.files().create(CreateFileRequest { file, purpose: FilePurpose::FineTune, expires_after: None }).await
}

fn supervised(n_epochs: u8, batch_size: u16, learning_rate_multiplier: LearningRateMultiplier) -> FineTuneMethod {
    let hyperparameters = FineTuneSupervisedHyperparameters {
        batch_size: BatchSize::BatchSize(batch_size),
        learning_rate_multiplier,
        n_epochs: NEpochs::NEpochs(n_epochs),
    };
    FineTuneMethod::Supervised { supervised: FineTuneSupervisedMethod { hyperparameters } }
}

impl Shop {
    /// A job of one epoch.
    fn job(&self) -> CreateFineTuningJobRequestArgs {
        let mut request = CreateFineTuningJobRequestArgs::default();
        let method = supervised(1, 4, LearningRateMultiplier::Auto);
        request.model(&self.model).training_file(&self.training).method(method);
        request
    }

    async fn create(&self, request: &CreateFineTuningJobRequestArgs) -> Result<FineTuningJob, OpenAIError> {
        self.api.fine_tuning().create(request.build()?).await
    }

    async fn until(&self, job: FineTuningJob, status: FineTuningJobStatus) -> Result<FineTuningJob, OpenAIError> {
        until(&self.api, job, status).await
    }

    /// What was said, newest first.
    async fn said(&self, job: &str) -> Result<Vec<FineTuningJobEvent>, OpenAIError> {
        Ok(self.api.fine_tuning().query(&[("limit", "100")])?.list_events(job).await?.data)
    }

    /// A job that runs until it is told.
    async fn long(&self) -> Result<FineTuningJob, OpenAIError> {
        let job = self.create(self.job().method(supervised(50, 1, LearningRateMultiplier::Auto))).await?;
        let job = self.until(job, FineTuningJobStatus::Running).await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.said(&job.id).await?.iter().any(|event| event.r#type == Some(FineTuningJobEventType::Metrics)) {
            assert!(Instant::now() < deadline, "{job:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(job)
    }
}

/// Polls, as users do.
async fn until(api: &Api, mut job: FineTuningJob, status: FineTuningJobStatus) -> Result<FineTuningJob, OpenAIError> {
    use FineTuningJobStatus::{Cancelled, Failed, Succeeded};
    let deadline = Instant::now() + Duration::from_secs(120);
    while job.status != status {
        assert!(Instant::now() < deadline && ![Failed, Cancelled, Succeeded].contains(&job.status), "{job:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        job = api.fine_tuning().retrieve(&job.id).await?;
    }
    Ok(job)
}

async fn prepare(api: Api, model: &str) -> Result<Shop, OpenAIError> {
    let training = upload(&api, "rows.jsonl", jsonl((0..12).map(row))).await?.id;
    let validation = upload(&api, "held-out.jsonl", jsonl((100..104).map(row))).await?.id;
    let request = CreateFineTuningJobRequest {
        model: model.to_owned(),
        training_file: training.clone(),
        validation_file: Some(validation.clone()),
        suffix: Some("labels".to_owned()),
        seed: Some(7),
        metadata: Some(json!({"team": "support"}).into()),
        method: Some(supervised(2, 4, LearningRateMultiplier::LearningRateMultiplier(1.5))),
        integrations: None,
    };
    let first = api.fine_tuning().create(request).await?;
    let done = until(&api, first.clone(), FineTuningJobStatus::Succeeded).await?;
    let tuned = done.fine_tuned_model.clone().unwrap_or_default();
    Ok(Shop { api, model: model.to_owned(), training, validation, first: Arc::new(first), done: Arc::new(done), tuned })
}

// --- files ---

async fn files_for_training(shop: Shop) -> Outcome {
    let content = jsonl((0..12).map(row));
    let file = upload(&shop.api, "a.jsonl", content.clone()).await?;
    assert_eq!((&file.purpose, file.expires_at), (&OpenAIFilePurpose::FineTune, None));
    assert_eq!(shop.api.files().content(&file.id).await?, content);
    assert!(shop.api.files().delete(&file.id).await?.deleted);
    refused(shop.api.files().delete(&file.id).await, 404);
    Ok(())
}

async fn files_for_training_must_be_jsonl(shop: Shop) -> Outcome {
    let found = refused(upload(&shop.api, "rows.csv", jsonl((0..12).map(row))).await, 400);
    assert!(param(&found) == Some("file") && found.api_error.message.contains("Must be .jsonl"), "{found}");
    Ok(())
}

async fn files_listed_by_purpose(shop: Shop) -> Outcome {
    let rows = shop.api.files().query(&[("purpose", "fine-tune")])?.list().await?;
    assert!(!rows.data.is_empty() && rows.data.iter().all(|file| file.purpose == OpenAIFilePurpose::FineTune));
    let results = shop.api.files().query(&[("purpose", "fine-tune-results")])?.list().await?;
    assert!(results.data.iter().any(|file| file.id == shop.done.result_files[0]), "{results:?}");
    Ok(())
}

async fn files_that_expire(shop: Shop) -> Outcome {
    let expiring = |seconds| CreateFileRequest {
        file: FileInput::from_vec_u8("a.jsonl".to_owned(), jsonl((0..12).map(row))),
        purpose: FilePurpose::FineTune,
        expires_after: Some(FileExpirationAfter { anchor: FileExpirationAfterAnchor::CreatedAt, seconds }),
    };
    let file = shop.api.files().create(expiring(3_600)).await?;
    assert_eq!(file.expires_at, Some(file.created_at + 3_600));
    shop.api.files().delete(&file.id).await?;
    assert_eq!(param(&refused(shop.api.files().create(expiring(3_599)).await, 400)), Some("expires_after.seconds"));
    Ok(())
}

// --- uploads ---

fn big(bytes: u64) -> Result<CreateUploadRequest, OpenAIError> {
    let mut request = CreateUploadRequestArgs::default();
    request.filename("big.jsonl").purpose(UploadPurpose::FineTune).bytes(bytes).mime_type("text/jsonl").build()
}

async fn part(api: &Api, upload: &str, content: &str) -> Result<String, OpenAIError> {
    let data = InputSource::VecU8 { filename: "part".to_owned(), vec: content.as_bytes().to_vec() };
    Ok(api.uploads().add_part(upload, AddUploadPartRequest { data }).await?.id)
}

fn completing(part_ids: &[String], md5: Option<&str>) -> CompleteUploadRequest {
    CompleteUploadRequest { part_ids: part_ids.to_vec(), md5: md5.map(str::to_owned) }
}

async fn uploads_in_the_order_that_is_said(shop: Shop) -> Outcome {
    let api = &shop.api;
    let begun = api.uploads().create(big(9)?).await?;
    assert!(matches!(begun.status, UploadStatus::Pending) && begun.object == "upload" && begun.expires_at == begun.created_at + 3_600);
    let (third, first, second) =
        (part(api, &begun.id, "789").await?, part(api, &begun.id, "123").await?, part(api, &begun.id, "456").await?);
    let done = api.uploads().complete(&begun.id, completing(&[first, second, third], None)).await?;
    let file = done.file.ok_or("a file")?;
    assert!(matches!(done.status, UploadStatus::Completed) && file.filename == "big.jsonl" && file.bytes == Some(9), "{file:?}");
    assert_eq!(api.files().content(&file.id).await?, &b"123456789"[..]);
    refused(part(api, &begun.id, "more").await, 400);
    api.files().delete(&file.id).await?;
    Ok(())
}

async fn uploads_with_a_checksum(shop: Shop) -> Outcome {
    let api = &shop.api;
    let begun = api.uploads().create(big(3)?).await?.id;
    let parts = [part(api, &begun, "123").await?];
    assert_eq!(param(&refused(api.uploads().complete(&begun, completing(&parts, Some(&"0".repeat(32)))).await, 400)), Some("md5"));
    let done = api.uploads().complete(&begun, completing(&parts, Some("202cb962ac59075b964b07152d234b70"))).await?;
    api.files().delete(&done.file.ok_or("a file")?.id).await?;
    Ok(())
}

async fn uploads_must_be_as_long_as_they_said(shop: Shop) -> Outcome {
    let api = &shop.api;
    let begun = api.uploads().create(big(6)?).await?.id;
    let parts = [part(api, &begun, "123").await?];
    assert_eq!(param(&refused(api.uploads().complete(&begun, completing(&parts, None)).await, 400)), Some("part_ids"));
    assert_eq!(param(&refused(part(api, &begun, "4567").await, 400)), Some("data"));
    api.uploads().cancel(&begun).await?;
    Ok(())
}

async fn uploads_cancelled(shop: Shop) -> Outcome {
    let begun = shop.api.uploads().create(big(3)?).await?.id;
    assert!(matches!(shop.api.uploads().cancel(&begun).await?.status, UploadStatus::Cancelled));
    refused(part(&shop.api, &begun, "123").await, 400);
    refused(shop.api.uploads().cancel(&begun).await, 400);
    Ok(())
}

// --- making jobs ---

async fn jobs_have_every_field_at_once(shop: Shop) -> Outcome {
    let request = CreateFineTuningJobRequestArgs::default().model(&shop.model).training_file(&shop.training).build()?;
    let job = shop.api.fine_tuning().create(request).await?;
    assert!(job.object == "fine_tuning.job" && job.id.starts_with("ftjob-") && !job.organization_id.is_empty(), "{job:?}");
    assert!(job.error.is_none() && job.fine_tuned_model.is_none() && job.finished_at.is_none() && job.result_files.is_empty(), "{job:?}");
    let hyperparameters = job.hyperparameters.as_ref().ok_or("hyperparameters")?;
    assert_eq!((&hyperparameters.n_epochs, &hyperparameters.batch_size), (&NEpochs::Auto, &BatchSize::Auto));
    assert!(matches!(job.method, Some(FineTuneMethod::Supervised { .. })) && job.seed.is_some_and(|seed| seed <= 2_147_483_647), "{job:?}");
    shop.api.fine_tuning().cancel(&job.id).await?;
    Ok(())
}

async fn jobs_keep_what_they_were_made_with(shop: Shop) -> Outcome {
    let job = &shop.first;
    assert_eq!((&job.model, job.seed, &job.training_file), (&shop.model, Some(7), &shop.training));
    assert_eq!((&job.validation_file, &job.metadata), (&Some(shop.validation.clone()), &Some(json!({"team": "support"}).into())));
    assert_eq!(job.method, Some(supervised(2, 4, LearningRateMultiplier::LearningRateMultiplier(1.5))));
    assert!(job.integrations.as_ref().is_some_and(Vec::is_empty));
    Ok(())
}

async fn jobs_of_preferences(shop: Shop) -> Outcome {
    let file = upload(&shop.api, "preferences.jsonl", jsonl((0..12).map(preference))).await?;
    let hyperparameters = FineTuneDPOHyperparameters {
        beta: Beta::Beta(0.5),
        batch_size: BatchSize::BatchSize(8),
        n_epochs: NEpochs::NEpochs(1),
        learning_rate_multiplier: LearningRateMultiplier::Auto,
    };
    let method = FineTuneMethod::DPO { dpo: FineTuneDPOMethod { hyperparameters } };
    let job = shop.create(shop.job().training_file(file.id).method(method)).await?;
    let done = shop.until(job, FineTuningJobStatus::Succeeded).await?;
    let Some(FineTuneMethod::DPO { dpo }) = &done.method else { panic!("{done:?}") };
    assert_eq!((&dpo.hyperparameters.beta, &dpo.hyperparameters.n_epochs), (&Beta::Beta(0.5), &NEpochs::NEpochs(1)));
    shop.api.models().delete(&done.fine_tuned_model.ok_or("a model")?).await?;
    Ok(())
}

async fn jobs_of_an_unmapped_model_are_refused_with_the_list(shop: Shop) -> Outcome {
    let found = refused(shop.create(shop.job().model("gpt-4.1-2025-04-14")).await, 400);
    assert_eq!((param(&found), code(&found)), (Some("model"), Some("model_not_available")));
    assert!(found.api_error.message.contains(&shop.model), "{found}");
    Ok(())
}

async fn jobs_of_files_that_are_not_there(shop: Shop) -> Outcome {
    assert_eq!(param(&refused(shop.create(shop.job().training_file("file-nobody")).await, 400)), Some("training_file"));
    assert_eq!(param(&refused(shop.create(shop.job().validation_file("file-nobody")).await, 400)), Some("validation_file"));
    Ok(())
}

async fn jobs_with_fields_out_of_range(shop: Shop) -> Outcome {
    let epochs = supervised(51, 4, LearningRateMultiplier::Auto);
    let found = refused(shop.create(shop.job().method(epochs)).await, 400);
    assert_eq!(param(&found), Some("method.supervised.hyperparameters.n_epochs"));
    assert_eq!(param(&refused(shop.create(shop.job().suffix("x".repeat(65))).await, 400)), Some("suffix"));
    assert_eq!(param(&refused(shop.create(shop.job().seed(2_147_483_648_u32)).await, 400)), Some("seed"));
    assert_eq!(param(&refused(shop.create(shop.job().metadata(json!({"k": "v".repeat(513)}))).await, 400)), Some("metadata"));
    let wandb = vec![FineTuningIntegration::default()];
    assert_eq!(param(&refused(shop.create(shop.job().integrations(wandb)).await, 400)), Some("integrations"));
    Ok(())
}

async fn jobs_of_too_few_rows_fail(shop: Shop) -> Outcome {
    let file = upload(&shop.api, "few.jsonl", jsonl((0..3).map(row))).await?;
    let job = shop.create(shop.job().training_file(file.id)).await?;
    let job = shop.until(job, FineTuningJobStatus::Failed).await?;
    let error = job.error.as_ref().ok_or("an error")?;
    assert_eq!((error.code.as_str(), error.param.as_deref()), ("invalid_n_examples", Some("training_file")));
    assert_eq!(error.message, "Training file has 3 example(s), but must have at least 10 examples");
    assert!(job.finished_at.is_some() && job.fine_tuned_model.is_none());
    assert!(shop.said(&job.id).await?.iter().any(|event| event.level == Level::Error));
    Ok(())
}

async fn jobs_made_once_for_a_key(shop: Shop) -> Outcome {
    let request = shop.job().build()?;
    let one = shop.api.fine_tuning().header("Idempotency-Key", "async-openai")?.create(request.clone()).await?;
    let again = shop.api.fine_tuning().header("Idempotency-Key", "async-openai")?.create(request).await?;
    assert_eq!(again.id, one.id);
    shop.api.fine_tuning().cancel(&one.id).await?;
    Ok(())
}

// --- looking at jobs ---

async fn jobs_unknown(shop: Shop) -> Outcome {
    refused(shop.api.fine_tuning().retrieve("ftjob-nobody").await, 404);
    refused(shop.api.fine_tuning().cancel("ftjob-nobody").await, 404);
    refused(shop.api.fine_tuning().list_events("ftjob-nobody").await, 404);
    Ok(())
}

async fn jobs_listed_page_by_page(shop: Shop) -> Outcome {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let mut query = vec![("limit", "2".to_owned())];
        query.extend(after.map(|id| ("after", id)));
        let page = shop.api.fine_tuning().query(&query)?.list_paginated().await?;
        ids.extend(page.data.into_iter().map(|job| job.id));
        after = ids.last().cloned();
        if !page.has_more {
            break;
        }
    }
    let whole = shop.api.fine_tuning().query(&[("limit", "100")])?.list_paginated().await?;
    assert_eq!(ids, whole.data.into_iter().map(|job| job.id).collect::<Vec<_>>());
    assert_eq!(ids.last(), Some(&shop.first.id));
    Ok(())
}

async fn jobs_found_by_their_notes(shop: Shop) -> Outcome {
    let found = shop.api.fine_tuning().query(&[("metadata[team]", "support")])?.list_paginated().await?;
    assert_eq!(found.data.iter().map(|job| &job.id).collect::<Vec<_>>(), [&shop.first.id]);
    assert!(shop.api.fine_tuning().query(&[("metadata[team]", "sales")])?.list_paginated().await?.data.is_empty());
    Ok(())
}

/// `ft:BASE:ORGANIZATION:SUFFIX:` and eight letters or digits.
fn named(name: &str, model: &str, suffix: &str) -> bool {
    let rest = name.strip_prefix(&format!("ft:{model}:")).unwrap_or_default();
    let parts: Vec<&str> = rest.split(':').collect();
    let eight = |part: &str| part.len() == 8 && part.chars().all(|letter| letter.is_ascii_alphanumeric());
    matches!(parts.as_slice(), [organization, found, id] if !organization.is_empty() && *found == suffix && eight(id))
}

async fn jobs_that_succeed_name_their_model(shop: Shop) -> Outcome {
    let job = shop.api.fine_tuning().retrieve(&shop.first.id).await?;
    assert!(named(&shop.tuned, &shop.model, "labels"), "{}", shop.tuned);
    assert!(job.finished_at >= Some(job.created_at) && job.error.is_none() && job.result_files.len() == 1, "{job:?}");
    assert!(job.trained_tokens.is_some_and(|tokens| tokens > 0) && job.estimated_finish.is_none(), "{job:?}");
    Ok(())
}

async fn jobs_without_a_suffix_keep_both_colons(shop: Shop) -> Outcome {
    let job = shop.until(shop.create(&shop.job()).await?, FineTuningJobStatus::Succeeded).await?;
    let name = job.fine_tuned_model.ok_or("a model")?;
    assert!(named(&name, &shop.model, ""), "{name}");
    assert_eq!(shop.api.models().retrieve(&name).await?.id, name);
    shop.api.models().delete(&name).await?;
    Ok(())
}

async fn events_say_what_people_parse(shop: Shop) -> Outcome {
    let texts: Vec<String> = shop.said(&shop.first.id).await?.into_iter().rev().map(|event| event.message).collect();
    assert_eq!(texts[0], format!("Created fine-tuning job: {}", shop.first.id));
    assert_eq!(texts[1], format!("Validating training file: {}", shop.training));
    assert!(
        texts.iter().any(|text| text == "Fine-tuning job started") && texts.iter().any(|text| text.starts_with("Step 6/6: training loss="))
    );
    let last = [format!("New fine-tuned model created: {}", shop.tuned), "The job has successfully completed".to_owned()];
    assert_eq!(texts[texts.len() - 2..], last);
    Ok(())
}

async fn events_have_numbers(shop: Shop) -> Outcome {
    let events = shop.said(&shop.first.id).await?;
    let metrics: Vec<&Value> = events
        .iter()
        .filter(|event| event.r#type == Some(FineTuningJobEventType::Metrics))
        .map(|event| event.data.as_ref().expect("metrics have data"))
        .collect();
    assert_eq!(metrics.iter().filter_map(|data| data["step"].as_u64()).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1], "newest first");
    assert!(metrics.iter().all(|data| data["total_steps"] == 6 && data["train_loss"].as_f64() > Some(0.0)), "{metrics:?}");
    Ok(())
}

async fn events_until_a_page_is_empty(shop: Shop) -> Outcome {
    // The crate does not read `has_more` of events.
    let mut ids: Vec<String> = Vec::new();
    loop {
        let mut query = vec![("limit", "5".to_owned())];
        query.extend(ids.last().map(|id| ("after", id.clone())));
        let page = shop.api.fine_tuning().query(&query)?.list_events(&shop.first.id).await?.data;
        if page.is_empty() {
            break;
        }
        ids.extend(page.into_iter().map(|event| event.id));
    }
    assert_eq!(ids, shop.said(&shop.first.id).await?.into_iter().map(|event| event.id).collect::<Vec<_>>());
    Ok(())
}

async fn checkpoints_have_numbers_everywhere(shop: Shop) -> Outcome {
    let page = shop.api.fine_tuning().list_checkpoints(&shop.first.id).await?;
    assert_eq!(page.data.iter().map(|checkpoint| checkpoint.step_number).collect::<Vec<_>>(), [6, 3]);
    assert_eq!((page.first_id.as_ref(), page.last_id.as_ref(), page.has_more), (Some(&page.data[0].id), Some(&page.data[1].id), false));
    for checkpoint in &page.data {
        assert!(checkpoint.id.starts_with("ftckpt_") && checkpoint.fine_tuning_job_id == shop.first.id, "{checkpoint:?}");
        assert_eq!(checkpoint.fine_tuned_model_checkpoint, format!("{}:ckpt-step-{}", shop.tuned, checkpoint.step_number));
        assert!(checkpoint.metrics.train_loss > 0.0 && checkpoint.metrics.full_valid_loss > 0.0, "{checkpoint:?}");
    }
    Ok(())
}

async fn checkpoints_of_a_job_without_any(shop: Shop) -> Outcome {
    let job = shop.create(&shop.job()).await?;
    shop.api.fine_tuning().cancel(&job.id).await?;
    let page = shop.api.fine_tuning().list_checkpoints(&job.id).await?;
    assert_eq!((page.data.len(), page.first_id, page.last_id, page.has_more), (0, None, None, false));
    Ok(())
}

async fn results_come_as_base64(shop: Shop) -> Outcome {
    let content = shop.api.files().content(&shop.done.result_files[0]).await?;
    let csv = String::from_utf8(STANDARD.decode(content)?)?;
    assert_eq!(csv.lines().next(), Some("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"));
    assert_eq!(csv.lines().count(), 7);
    Ok(())
}

// --- changing jobs ---

async fn jobs_cancelled_while_they_run(shop: Shop) -> Outcome {
    let job = shop.api.fine_tuning().cancel(&shop.long().await?.id).await?;
    assert!(job.status == FineTuningJobStatus::Cancelled && job.finished_at.is_some() && job.fine_tuned_model.is_none(), "{job:?}");
    assert_eq!(shop.said(&job.id).await?[0].message, "Fine-tuning job cancelled");
    Ok(())
}

async fn jobs_that_are_over_answer_400(shop: Shop) -> Outcome {
    refused(shop.api.fine_tuning().cancel(&shop.first.id).await, 400);
    refused(shop.api.fine_tuning().pause(&shop.first.id).await, 400);
    refused(shop.api.fine_tuning().resume(&shop.first.id).await, 400);
    Ok(())
}

async fn jobs_paused_and_resumed(shop: Shop) -> Outcome {
    let paused = shop.api.fine_tuning().pause(&shop.long().await?.id).await?;
    assert_eq!(paused.status, FineTuningJobStatus::Queued, "OpenAI's specification has no other word");
    assert_eq!(shop.said(&paused.id).await?[0].message, "Fine-tuning job paused");
    let resumed = shop.api.fine_tuning().resume(&paused.id).await?;
    let running = shop.until(resumed, FineTuningJobStatus::Running).await?;
    shop.api.fine_tuning().cancel(&running.id).await?;
    Ok(())
}

// --- models ---

impl Shop {
    fn question(&self, model: &str) -> Result<CreateChatCompletionRequest, OpenAIError> {
        let messages: Vec<ChatCompletionRequestMessage> =
            vec![ChatCompletionRequestSystemMessage::from("Label it.").into(), ChatCompletionRequestUserMessage::from("Ticket 1").into()];
        CreateChatCompletionRequestArgs::default().model(model).messages(messages).max_completion_tokens(4_u32).temperature(0.0_f32).build()
    }

    async fn answer(&self, model: &str) -> Result<String, OpenAIError> {
        let answer = self.api.chat().create(self.question(model)?).await?;
        assert_eq!(answer.model, model);
        Ok(answer.choices[0].message.content.clone().unwrap_or_default())
    }
}

async fn models_that_were_tuned_are_listed(shop: Shop) -> Outcome {
    let models = shop.api.models().list().await?;
    let mine = models.data.iter().find(|model| model.id == shop.tuned).ok_or("not listed")?;
    assert!(models.object == "list" && mine.object == "model" && mine.created > 0 && !mine.owned_by.is_empty(), "{mine:?}");
    Ok(())
}

async fn models_are_found_by_names_with_colons(shop: Shop) -> Outcome {
    for name in [shop.tuned.clone(), format!("{}:ckpt-step-3", shop.tuned)] {
        let found = shop.api.models().retrieve(&name).await?;
        assert_eq!((found.id, found.shutdown_date), (name, None));
    }
    assert_eq!(code(&refused(shop.api.models().retrieve("ft:nobody:org::00000000").await, 404)), Some("model_not_found"));
    Ok(())
}

async fn models_that_were_tuned_answer(shop: Shop) -> Outcome {
    assert!(!shop.answer(&shop.tuned).await?.is_empty());
    Ok(())
}

async fn models_that_were_tuned_stream(shop: Shop) -> Outcome {
    let mut chunks = shop.api.chat().create_stream(shop.question(&shop.tuned)?).await?;
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        chunk?.choices.iter().filter_map(|choice| choice.delta.content.as_deref()).for_each(|piece| text.push_str(piece));
    }
    assert_eq!(text, shop.answer(&shop.tuned).await?);
    Ok(())
}

async fn models_as_they_were_after_an_epoch_answer(shop: Shop) -> Outcome {
    shop.answer(&format!("{}:ckpt-step-3", shop.tuned)).await?;
    Ok(())
}

async fn models_are_deleted(shop: Shop) -> Outcome {
    let job = shop.until(shop.create(&shop.job()).await?, FineTuningJobStatus::Succeeded).await?;
    let name = job.fine_tuned_model.ok_or("a model")?;
    let gone = shop.api.models().delete(&name).await?;
    assert!(gone.deleted && gone.id == name && gone.object == "model", "{gone:?}");
    refused(shop.api.models().retrieve(&name).await, 404);
    assert_eq!(code(&refused(shop.api.chat().create(shop.question(&name)?).await, 404)), Some("model_not_found"));
    Ok(())
}

async fn permissions_are_given_listed_and_taken(shop: Shop) -> Outcome {
    let (name, tuning) = (format!("{}:ckpt-step-3", shop.tuned), shop.api.fine_tuning());
    let request = CreateFineTuningCheckpointPermissionRequest { project_ids: vec!["proj_a".to_owned(), "proj_b".to_owned()] };
    let given = tuning.create_checkpoint_permissions(&name, request).await?;
    let listed = shop.api.fine_tuning().query(&[("order", "ascending")])?.list_checkpoint_permissions(&name).await?;
    assert_eq!(listed.data.iter().map(|one| one.project_id.as_str()).collect::<Vec<_>>(), ["proj_a", "proj_b"]);
    assert_eq!(listed.data, given.data);
    let gone = tuning.delete_checkpoint_permissions(&name, &given.data[0].id).await?;
    assert!(gone.deleted && gone.object == "checkpoint.permission", "{gone:?}");
    assert_eq!(tuning.list_checkpoint_permissions(&name).await?.data.len(), 1);
    Ok(())
}

// --- what the crate cannot read of OpenAI's own API ---

/// The finished job as JSON, for one field to be changed.
fn as_json(shop: &Shop) -> Result<Value, serde_json::Error> {
    let sent = serde_json::to_value(shop.done.as_ref())?;
    serde_json::from_value::<FineTuningJob>(sent.clone())?;
    Ok(sent)
}

async fn limit_null_as_a_batch_size(shop: Shop) -> Outcome {
    let mut sent = as_json(&shop)?;
    sent["hyperparameters"]["batch_size"] = Value::Null;
    assert!(serde_json::from_value::<FineTuningJob>(sent).is_err(), "the crate reads it now");
    Ok(())
}

async fn limit_checkpoints_without_some_metrics(_shop: Shop) -> Outcome {
    let part = json!({"step": 88, "train_loss": 0.478, "train_mean_token_accuracy": 0.924});
    assert!(serde_json::from_value::<FineTuningJobCheckpointMetrics>(part).is_err(), "the crate reads them now");
    Ok(())
}

async fn limit_many_trained_tokens(shop: Shop) -> Outcome {
    let mut sent = as_json(&shop)?;
    sent["trained_tokens"] = json!(u64::from(u32::MAX) + 1);
    assert!(serde_json::from_value::<FineTuningJob>(sent).is_err(), "the crate reads them now");
    Ok(())
}
