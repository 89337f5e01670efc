//! Chat, responses, embeddings, models, files and vector stores.

use crate::{Api, Outcome, code, param, refused, run};
use async_openai::error::OpenAIError;
use async_openai::traits::RequestOptionsBuilder;
use async_openai::types::chat::{
    ChatCompletionMessageToolCalls, ChatCompletionNamedToolChoice, ChatCompletionRequestAssistantMessageArgs,
    ChatCompletionRequestDeveloperMessage, ChatCompletionRequestMessage, ChatCompletionRequestMessageContentPartImage,
    ChatCompletionRequestMessageContentPartText, ChatCompletionRequestToolMessage, ChatCompletionRequestUserMessage,
    ChatCompletionRequestUserMessageArgs, ChatCompletionRequestUserMessageContentPart, ChatCompletionResponseMessage,
    ChatCompletionResponseMessageAnnotation, ChatCompletionStreamOptions, ChatCompletionTool, ChatCompletionToolChoiceOption,
    ChatCompletionTools, CreateChatCompletionRequest, CreateChatCompletionRequestArgs, CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse, FinishReason, FunctionName, FunctionObject, ImageUrl, ResponseFormat, ResponseFormatJsonSchema,
    Role,
};
use async_openai::types::embeddings::{CreateEmbeddingRequestArgs, EncodingFormat};
use async_openai::types::files::{CreateFileRequest, FileInput, FilePurpose, OpenAIFile};
use async_openai::types::responses::{
    CreateResponse, CreateResponseArgs, FileSearchTool, FunctionCallOutputItemParam, FunctionTool, IncludeEnum, InputContent,
    InputImageContent, InputItem, InputParam, InputTextContent, Item, OutputItem, OutputMessageContent, Response, ResponseErrorCode,
    ResponseStreamEvent, Status, Tool,
};
use async_openai::types::vectorstores::{
    AttributeValue, CreateVectorStoreFileRequest, CreateVectorStoreRequest, UpdateVectorStoreRequest, VectorStoreFileAttributes,
    VectorStoreFileErrorCode, VectorStoreFileObject, VectorStoreFileStatus, VectorStoreSearchRequestArgs, VectorStoreSearchResultsPage,
    VectorStoreStatus,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const ASK: &str = "How long can I send my grinder back?";

pub async fn run_all(api: Api) -> usize {
    run!(api;
        chat_answers_with_a_citation,
        chat_usage_has_details,
        chat_stream_equals_the_whole,
        chat_stream_include_usage,
        chat_stream_closed_early,
        chat_n,
        chat_sampling_is_passed_on,
        chat_logprobs,
        chat_logprobs_streamed,
        chat_tool_calls,
        chat_tool_calls_streamed,
        chat_tool_answers_are_sent_back,
        chat_tool_choice_is_passed_on,
        chat_structured_output,
        chat_images,
        chat_developer_messages,
        chat_names_of_people_stay,
        chat_refusal,
        chat_finish_reason_length,
        error_unknown_model,
        error_wrong_parameter,
        error_too_long,
        error_rate_limit,
        error_model_server_down,
        error_in_the_middle_of_a_stream,
        models_list_and_retrieve,
        embeddings_float_and_base64,
        embeddings_of_several_texts,
        files_upload_list_retrieve_content_delete,
        files_pages,
        files_purpose_and_size,
        stores_create_retrieve_modify_list_delete,
        stores_own_collection,
        stores_files_and_search,
        stores_made_with_files,
        stores_say_which_file_cannot_be_read,
        responses_answer_with_a_url_citation,
        responses_file_search,
        responses_streamed_events,
        responses_instructions,
        responses_go_on_from_an_earlier_one,
        responses_retrieve_and_delete,
        responses_function_calls,
        responses_function_calls_streamed,
        responses_images,
        responses_incomplete,
        responses_refuse_by_name,
        responses_fail_in_the_middle_of_a_stream,
        limit_attributes_with_fractions,
        limit_purposes_of_files,
    )
}

// --- chat completions ---

fn request(text: &str) -> CreateChatCompletionRequestArgs {
    let mut request = CreateChatCompletionRequestArgs::default();
    request.model("shop").messages(vec![ChatCompletionRequestUserMessage::from(text).into()]);
    request
}

async fn ask(api: &Api, text: &str) -> Result<CreateChatCompletionResponse, OpenAIError> {
    api.chat().create(request(text).build()?).await
}

fn message(answer: &CreateChatCompletionResponse) -> &ChatCompletionResponseMessage {
    &answer.choices[0].message
}

fn content(answer: &CreateChatCompletionResponse) -> &str {
    message(answer).content.as_deref().expect("an answer has text")
}

/// What the model server was sent: it answers with its request.
async fn echo(api: &Api, request: CreateChatCompletionRequest) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    Ok(serde_json::from_str(content(&api.chat().create(request).await?))?)
}

async fn stream(api: &Api, request: CreateChatCompletionRequest) -> Result<Vec<CreateChatCompletionStreamResponse>, OpenAIError> {
    api.chat().create_stream(request).await?.collect::<Vec<_>>().await.into_iter().collect()
}

fn text_of(chunks: &[CreateChatCompletionStreamResponse]) -> String {
    chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.delta.content.as_deref()).collect()
}

fn tools() -> Vec<ChatCompletionTools> {
    let parameters = json!({"type": "object", "properties": {"sku": {"type": "string"}}});
    let function = FunctionObject { name: "price".to_owned(), parameters: Some(parameters), ..FunctionObject::default() };
    vec![ChatCompletionTools::Function(ChatCompletionTool { function })]
}

async fn chat_answers_with_a_citation(api: Api) -> Outcome {
    let answer = ask(&api, ASK).await?;
    assert!(answer.object == "chat.completion" && answer.id.starts_with("chatcmpl-") && answer.model == "shop", "{answer:?}");
    assert_eq!((message(&answer).role, answer.choices[0].finish_reason), (Role::Assistant, Some(FinishReason::Stop)));
    let annotations = message(&answer).annotations.as_deref().expect("an answer cites");
    let ChatCompletionResponseMessageAnnotation::UrlCitation { url_citation } = &annotations[0];
    assert_eq!(&content(&answer)[url_citation.start_index as usize..url_citation.end_index as usize], "[1]");
    assert!(!url_citation.title.is_empty() && !url_citation.url.is_empty());
    Ok(())
}

async fn chat_usage_has_details(api: Api) -> Outcome {
    let usage = ask(&api, ASK).await?.usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (40, 9, 49));
    assert_eq!(usage.prompt_tokens_details.and_then(|details| details.cached_tokens), Some(8));
    assert_eq!(usage.completion_tokens_details.and_then(|details| details.reasoning_tokens), Some(3));
    Ok(())
}

async fn chat_stream_equals_the_whole(api: Api) -> Outcome {
    let chunks = stream(&api, request(ASK).build()?).await?;
    assert_eq!(text_of(&chunks), content(&ask(&api, ASK).await?));
    assert_eq!(chunks[0].choices[0].delta.role, Some(Role::Assistant));
    assert!(chunks.iter().all(|chunk| chunk.id == chunks[0].id && chunk.usage.is_none() && chunk.object == "chat.completion.chunk"));
    Ok(())
}

async fn chat_stream_include_usage(api: Api) -> Outcome {
    let options = ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None };
    let chunks = stream(&api, request(ASK).stream_options(options).build()?).await?;
    let last = chunks.last().expect("chunks");
    assert!(last.choices.is_empty());
    assert_eq!(last.usage.as_ref().map(|usage| usage.total_tokens), Some(49));
    Ok(())
}

async fn chat_stream_closed_early(api: Api) -> Outcome {
    let mut chunks = api.chat().create_stream(request(&format!("SLOW {ASK}")).build()?).await?;
    for _ in 0..3 {
        chunks.next().await.expect("it goes on")?;
    }
    Ok(())
}

async fn chat_n(api: Api) -> Outcome {
    let answer = api.chat().create(request(ASK).n(3_u8).build()?).await?;
    assert_eq!(answer.choices.iter().map(|choice| choice.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(answer.usage.map(|usage| usage.completion_tokens), Some(27));
    Ok(())
}

async fn chat_sampling_is_passed_on(api: Api) -> Outcome {
    let mut asked = request(&format!("ECHO {ASK}"));
    asked
        .temperature(0.5_f32)
        .top_p(0.25_f32)
        .frequency_penalty(1.5_f32)
        .presence_penalty(-0.5_f32)
        .max_completion_tokens(50_u32)
        .stop(["END"]);
    asked.logit_bias(HashMap::from([("50256".to_owned(), -100)]));
    let sent = echo(&api, asked.build()?).await?;
    assert_eq!((&sent["temperature"], &sent["top_p"], &sent["frequency_penalty"]), (&json!(0.5), &json!(0.25), &json!(1.5)));
    assert_eq!((&sent["presence_penalty"], &sent["max_completion_tokens"]), (&json!(-0.5), &json!(50)));
    assert_eq!((&sent["stop"], &sent["logit_bias"]), (&json!(["END"]), &json!({"50256": -100})));
    Ok(())
}

async fn chat_logprobs(api: Api) -> Outcome {
    let answer = api.chat().create(request(ASK).logprobs(true).build()?).await?;
    let tokens = answer.choices[0].logprobs.as_ref().and_then(|found| found.content.clone()).expect("log probabilities");
    assert_eq!((tokens[0].token.as_str(), tokens[0].logprob, tokens[0].bytes.as_deref()), ("Yes", -0.25, Some(&b"Yes"[..])));
    Ok(())
}

async fn chat_logprobs_streamed(api: Api) -> Outcome {
    let chunks = stream(&api, request(ASK).logprobs(true).build()?).await?;
    let found = chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.logprobs.as_ref()?.content.as_ref());
    assert_eq!(found.flatten().map(|token| token.token.as_str()).collect::<Vec<_>>(), ["Yes"]);
    Ok(())
}

/// Id, name and arguments of each call.
fn calls(of: &ChatCompletionResponseMessage) -> Vec<(String, String, String)> {
    let calls = of.tool_calls.iter().flatten().map(|call| match call {
        ChatCompletionMessageToolCalls::Function(call) => (call.id.clone(), call.function.name.clone(), call.function.arguments.clone()),
        ChatCompletionMessageToolCalls::Custom(call) => panic!("{call:?}"),
    });
    calls.collect()
}

async fn chat_tool_calls(api: Api) -> Outcome {
    let answer = api.chat().create(request(ASK).tools(tools()).build()?).await?;
    assert_eq!((answer.choices[0].finish_reason, &message(&answer).content), (Some(FinishReason::ToolCalls), &None));
    let call = |id: &str, arguments: &str| (id.to_owned(), "price".to_owned(), arguments.to_owned());
    assert_eq!(calls(message(&answer)), [call("call_1", r#"{"sku":"G1"}"#), call("call_2", r#"{"sku":"G2"}"#)]);
    Ok(())
}

async fn chat_tool_calls_streamed(api: Api) -> Outcome {
    let chunks = stream(&api, request(ASK).tools(tools()).build()?).await?;
    let mut arguments: HashMap<u32, String> = HashMap::new();
    for call in chunks.iter().flat_map(|chunk| &chunk.choices).flat_map(|choice| choice.delta.tool_calls.iter().flatten()) {
        let piece = call.function.as_ref().and_then(|function| function.arguments.as_deref()).unwrap_or_default();
        arguments.entry(call.index).or_default().push_str(piece);
    }
    assert_eq!(arguments, HashMap::from([(0, r#"{"sku":"G1"}"#.to_owned()), (1, r#"{"sku":"G2"}"#.to_owned())]));
    Ok(())
}

async fn chat_tool_answers_are_sent_back(api: Api) -> Outcome {
    let first = api.chat().create(request(ASK).tools(tools()).build()?).await?;
    let called = message(&first).tool_calls.clone().expect("calls");
    let mut messages: Vec<ChatCompletionRequestMessage> = vec![ChatCompletionRequestUserMessage::from(ASK).into()];
    messages.push(ChatCompletionRequestAssistantMessageArgs::default().tool_calls(called).build()?.into());
    for (tool_call_id, _, _) in calls(message(&first)) {
        messages.push(ChatCompletionRequestToolMessage { content: "89".into(), tool_call_id }.into());
    }
    let answer = api.chat().create(request(ASK).messages(messages).tools(tools()).build()?).await?;
    assert_eq!(content(&answer), "It costs 89 euro.");
    Ok(())
}

async fn chat_tool_choice_is_passed_on(api: Api) -> Outcome {
    let choice = ChatCompletionNamedToolChoice { function: FunctionName { name: "price".to_owned() } };
    let asked = request(&format!("ECHO {ASK}")).tools(tools()).tool_choice(ChatCompletionToolChoiceOption::Function(choice)).build()?;
    let sent = echo(&api, asked).await?;
    assert_eq!(sent["tool_choice"], json!({"type": "function", "function": {"name": "price"}}));
    assert_eq!((&sent["tools"][0]["type"], &sent["tools"][0]["function"]["name"]), (&json!("function"), &json!("price")));
    Ok(())
}

async fn chat_structured_output(api: Api) -> Outcome {
    let schema = json!({"type": "object", "properties": {"days": {"type": "integer"}, "sure": {"type": "boolean"}}, "required": ["days", "sure"], "additionalProperties": false});
    let json_schema = ResponseFormatJsonSchema { name: "window".to_owned(), schema, strict: Some(true), description: None };
    let answer = api.chat().create(request(ASK).response_format(ResponseFormat::JsonSchema { json_schema }).build()?).await?;
    assert_eq!(serde_json::from_str::<Value>(content(&answer))?, json!({"days": 45, "sure": true}));
    Ok(())
}

async fn chat_images(api: Api) -> Outcome {
    let text = ChatCompletionRequestMessageContentPartText { text: ASK.to_owned(), prompt_cache_breakpoint: None };
    let image_url = ImageUrl { url: "data:image/png;base64,AAAA".to_owned(), detail: None };
    let image = ChatCompletionRequestMessageContentPartImage { image_url, prompt_cache_breakpoint: None };
    let parts: Vec<ChatCompletionRequestUserMessageContentPart> = vec![text.into(), image.into()];
    let message = ChatCompletionRequestUserMessageArgs::default().content(parts).build()?;
    let answer = api.chat().create(request(ASK).messages(vec![message.into()]).build()?).await?;
    assert!(content(&answer).contains("data:image/png;base64,AAAA") && content(&answer).contains("(true)"), "{answer:?}");
    Ok(())
}

async fn chat_developer_messages(api: Api) -> Outcome {
    let kind = ChatCompletionRequestDeveloperMessage::from("Be kind.");
    let messages = vec![kind.into(), ChatCompletionRequestUserMessage::from("HISTORY").into()];
    let sent = echo(&api, request(ASK).messages(messages).build()?).await?;
    assert_eq!(sent["roles"][0], "system");
    assert!(sent["messages"][0]["content"].as_str().is_some_and(|text| text.contains("Be kind.")), "{sent}");
    Ok(())
}

async fn chat_names_of_people_stay(api: Api) -> Outcome {
    let message = ChatCompletionRequestUserMessageArgs::default().content("HISTORY").name("ann").build()?;
    let sent = echo(&api, request(ASK).messages(vec![message.into()]).build()?).await?;
    assert_eq!(sent["messages"].as_array().and_then(|sent| sent.last()).map(|last| &last["name"]), Some(&json!("ann")));
    Ok(())
}

async fn chat_refusal(api: Api) -> Outcome {
    let answer = ask(&api, &format!("REFUSE {ASK}")).await?;
    assert_eq!((message(&answer).refusal.as_deref(), &message(&answer).content), (Some("I cannot do that."), &None));
    Ok(())
}

async fn chat_finish_reason_length(api: Api) -> Outcome {
    assert_eq!(ask(&api, &format!("SHORT {ASK}")).await?.choices[0].finish_reason, Some(FinishReason::Length));
    Ok(())
}

// --- errors ---

async fn error_unknown_model(api: Api) -> Outcome {
    let found = refused(api.chat().create(request(ASK).model("gpt-4o").build()?).await, 404);
    assert_eq!(code(&found), Some("model_not_found"));
    Ok(())
}

async fn error_wrong_parameter(api: Api) -> Outcome {
    let found = refused(api.chat().create(request(ASK).temperature(3.0_f32).build()?).await, 400);
    assert_eq!((param(&found), found.api_error.r#type.as_deref()), (Some("temperature"), Some("invalid_request_error")));
    Ok(())
}

async fn error_too_long(api: Api) -> Outcome {
    assert_eq!(code(&refused(ask(&api, &"word ".repeat(20_000)).await, 400)), Some("context_length_exceeded"));
    Ok(())
}

async fn error_rate_limit(api: Api) -> Outcome {
    // The client tries four times, and waits as long as it is told.
    let found = refused(ask(&api, "FAIL:429").await, 429);
    assert_eq!(found.api_error.r#type.as_deref(), Some("rate_limit_error"));
    Ok(())
}

async fn error_model_server_down(api: Api) -> Outcome {
    // Of a 5xx the client keeps the body as text.
    assert!(refused(ask(&api, "FAIL:500").await, 502).api_error.message.contains("upstream_error"));
    Ok(())
}

async fn error_in_the_middle_of_a_stream(api: Api) -> Outcome {
    let found = stream(&api, request(&format!("CUT {ASK}")).build()?).await.expect_err("half an answer was taken for a whole one");
    assert!(found.to_string().contains("ended before the answer did"), "{found}");
    Ok(())
}

// --- models and embeddings ---

async fn models_list_and_retrieve(api: Api) -> Outcome {
    let models = api.models().list().await?;
    assert_eq!((models.object.as_str(), models.data[0].id.as_str()), ("list", "shop"));
    assert_eq!(api.models().retrieve("shop").await?, models.data[0]);
    assert_eq!(code(&refused(api.models().retrieve("nobody").await, 404)), Some("model_not_found"));
    Ok(())
}

async fn embedder(api: &Api) -> Result<String, OpenAIError> {
    Ok(api.models().list().await?.data.swap_remove(1).id)
}

async fn embeddings_float_and_base64(api: Api) -> Outcome {
    let mut asked = CreateEmbeddingRequestArgs::default();
    asked.model(embedder(&api).await?).input("a kettle");
    let floats = api.embeddings().create(asked.build()?).await?.data.swap_remove(0).embedding;
    let bytes = api.embeddings().create_base64(asked.encoding_format(EncodingFormat::Base64).build()?).await?.data.swap_remove(0);
    let bytes = STANDARD.decode(bytes.embedding.0)?;
    let same: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|piece| f32::from_le_bytes(*piece)).collect();
    assert!(floats.len() == 384 && same.len() == 384 && floats.iter().zip(&same).all(|(one, other)| (one - other).abs() < 1e-6));
    Ok(())
}

async fn embeddings_of_several_texts(api: Api) -> Outcome {
    let asked = CreateEmbeddingRequestArgs::default().model(embedder(&api).await?).input(["a kettle", "a grinder"]).build()?;
    let found = api.embeddings().create(asked).await?;
    assert_eq!(found.data.iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1]);
    assert!(found.usage.prompt_tokens > 0 && found.data[0].embedding != found.data[1].embedding);
    Ok(())
}

// --- files and vector stores ---

const KETTLES: &str = "# Kettles\n\nA kettle can be sent back within 77 days. The kettle's label is free.\n";

async fn upload_as(api: &Api, name: &str, text: &str, purpose: FilePurpose) -> Result<OpenAIFile, OpenAIError> {
    let file = FileInput::from_vec_u8(name.to_owned(), text.as_bytes().to_vec());
    api.files().create(CreateFileRequest { file, purpose, expires_after: None }).await
}

async fn upload(api: &Api, name: &str) -> Result<OpenAIFile, OpenAIError> {
    upload_as(api, name, KETTLES, FilePurpose::Assistants).await
}

async fn files_upload_list_retrieve_content_delete(api: Api) -> Outcome {
    let file = upload(&api, "returns of kettles.md").await?;
    assert_eq!((file.object.as_str(), file.filename.as_str(), file.bytes), ("file", "returns of kettles.md", Some(KETTLES.len() as u32)));
    assert_eq!(api.files().retrieve(&file.id).await?, file);
    assert!(api.files().list().await?.data.contains(&file));
    assert_eq!(api.files().content(&file.id).await?, KETTLES.as_bytes());
    assert!(api.files().delete(&file.id).await?.deleted);
    refused(api.files().retrieve(&file.id).await, 404);
    Ok(())
}

async fn files_pages(api: Api) -> Outcome {
    let mut made = Vec::new();
    for name in ["0.md", "1.md", "2.md"] {
        made.push(upload(&api, name).await?.id);
    }
    let first = api.files().query(&[("limit", "2"), ("order", "asc")])?.list().await?;
    assert!(first.has_more && first.data.len() == 2 && first.last_id.as_ref() == Some(&made[1]), "{first:?}");
    let rest = api.files().query(&[("limit", "2"), ("order", "asc"), ("after", &made[1])])?.list().await?;
    assert!(!rest.has_more && rest.data.len() == 1 && rest.data[0].id == made[2], "{rest:?}");
    for id in made {
        api.files().delete(&id).await?;
    }
    Ok(())
}

async fn files_purpose_and_size(api: Api) -> Outcome {
    assert_eq!(param(&refused(upload_as(&api, "a.md", KETTLES, FilePurpose::Vision).await, 400)), Some("purpose"));
    assert_eq!(param(&refused(upload_as(&api, "a.md", "", FilePurpose::Assistants).await, 400)), Some("file"));
    Ok(())
}

async fn stores_create_retrieve_modify_list_delete(api: Api) -> Outcome {
    let request = CreateVectorStoreRequest { name: Some("kettles".into()), metadata: Some(json!({"a": "b"}).into()), ..Default::default() };
    let store = api.vector_stores().create(request).await?;
    assert_eq!((store.object.as_str(), &store.status, store.file_counts.total), ("vector_store", &VectorStoreStatus::Completed, 0));
    let change = UpdateVectorStoreRequest { name: Some("teapots".to_owned()), ..Default::default() };
    assert_eq!(api.vector_stores().update(&store.id, change).await?.name.as_deref(), Some("teapots"));
    assert_eq!(api.vector_stores().retrieve(&store.id).await?.metadata, Some(json!({"a": "b"}).into()));
    assert!(api.vector_stores().list().await?.data.iter().any(|found| found.id == store.id));
    assert!(api.vector_stores().delete(&store.id).await?.deleted);
    refused(api.vector_stores().retrieve(&store.id).await, 404);
    Ok(())
}

async fn search(api: &Api, store: &str, text: &str) -> Result<VectorStoreSearchResultsPage, OpenAIError> {
    api.vector_stores().search(store, VectorStoreSearchRequestArgs::default().query(text).max_num_results(1_u8).build()?).await
}

async fn stores_own_collection(api: Api) -> Outcome {
    let own = api.vector_stores().list().await?.data.swap_remove(0);
    assert_eq!((own.id.as_str(), own.file_counts.completed), ("documents", 5));
    assert_eq!(search(&api, "documents", "opening hours").await?.data[0].filename, "hours.txt");
    refused(api.vector_stores().delete("documents").await, 409);
    Ok(())
}

/// The file, once it has been read or cannot be.
async fn settled(api: &Api, store: &str, file: &str) -> Result<VectorStoreFileObject, OpenAIError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = api.vector_stores().files(store).retrieve(file).await?;
        if found.status != VectorStoreFileStatus::InProgress {
            return Ok(found);
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn attach(file: &OpenAIFile, attributes: Option<VectorStoreFileAttributes>) -> CreateVectorStoreFileRequest {
    CreateVectorStoreFileRequest { file_id: file.id.clone(), attributes, chunking_strategy: None }
}

async fn stores_files_and_search(api: Api) -> Outcome {
    let (store, file) = (api.vector_stores().create(Default::default()).await?.id, upload(&api, "returns of kettles.md").await?);
    assert!(search(&api, &store, "kettle").await?.data.is_empty(), "nothing is in it");
    let attributes = VectorStoreFileAttributes(HashMap::from([("year".to_owned(), AttributeValue::Number(2026))]));
    api.vector_stores().files(&store).create(attach(&file, Some(attributes.clone()))).await?;
    let attached = settled(&api, &store, &file.id).await?;
    assert_eq!((&attached.status, &attached.attributes), (&VectorStoreFileStatus::Completed, &Some(attributes.clone())));
    let listed = api.vector_stores().files(&store).query(&[("filter", "completed")])?.list().await?;
    assert!(listed.data.len() == 1 && listed.data[0].id == file.id && !listed.has_more, "{listed:?}");
    assert_eq!(api.vector_stores().retrieve(&store).await?.file_counts.completed, 1);
    let hit = search(&api, &store, "How long can a kettle be sent back?").await?.data.swap_remove(0);
    assert_eq!((&hit.file_id, &hit.filename, &hit.attributes), (&file.id, &file.filename, &attributes));
    assert!(hit.content[0].text.contains("77 days") && hit.score > 0.0, "{hit:?}");
    assert!(api.vector_stores().files(&store).delete(&file.id).await?.deleted);
    assert!(search(&api, &store, "kettle").await?.data.is_empty());
    api.vector_stores().delete(&store).await?;
    api.files().delete(&file.id).await?;
    Ok(())
}

async fn stores_made_with_files(api: Api) -> Outcome {
    let file = upload(&api, "returns of kettles.md").await?;
    let request = CreateVectorStoreRequest { file_ids: Some(vec![file.id.clone()]), ..Default::default() };
    let store = api.vector_stores().create(request).await?.id;
    settled(&api, &store, &file.id).await?;
    assert!(!search(&api, &store, "kettle").await?.data.is_empty());
    api.files().delete(&file.id).await?;
    assert!(search(&api, &store, "kettle").await?.data.is_empty(), "a deleted file leaves its stores");
    api.vector_stores().delete(&store).await?;
    Ok(())
}

async fn stores_say_which_file_cannot_be_read(api: Api) -> Outcome {
    let file = upload_as(&api, "picture.xyz", "not a format", FilePurpose::Assistants).await?;
    let store = api.vector_stores().create(Default::default()).await?.id;
    api.vector_stores().files(&store).create(attach(&file, None)).await?;
    let failed = settled(&api, &store, &file.id).await?;
    let error = failed.last_error.expect("a reason");
    assert_eq!(failed.status, VectorStoreFileStatus::Failed);
    assert!(error.code != VectorStoreFileErrorCode::ServerError && !error.message.is_empty(), "{error:?}");
    api.vector_stores().delete(&store).await?;
    api.files().delete(&file.id).await?;
    Ok(())
}

// --- responses ---

fn response(input: impl Into<InputParam>) -> CreateResponseArgs {
    let mut request = CreateResponseArgs::default();
    request.model("shop").input(input);
    request
}

fn said(response: &Response) -> String {
    response.output_text().expect("a response has text")
}

/// The annotations of a message as JSON: the crate keeps their fields to itself.
fn annotations(item: &OutputItem) -> Vec<Value> {
    let OutputItem::Message(message) = item else { panic!("{item:?}") };
    let OutputMessageContent::OutputText(text) = &message.content[0] else { panic!("{message:?}") };
    text.annotations.iter().map(|one| serde_json::to_value(one).expect("JSON")).collect()
}

async fn events(api: &Api, request: CreateResponse) -> Result<Vec<ResponseStreamEvent>, OpenAIError> {
    api.responses().create_stream(request).await?.collect::<Vec<_>>().await.into_iter().collect()
}

async fn responses_answer_with_a_url_citation(api: Api) -> Outcome {
    let answer = api.responses().create(response(ASK).build()?).await?;
    assert_eq!((answer.object.as_str(), &answer.status), ("response", &Status::Completed));
    let (text, citation) = (said(&answer), annotations(&answer.output[0]).swap_remove(0));
    let at = |name: &str| citation[name].as_u64().expect("a number") as usize;
    assert_eq!((&citation["type"], &text[at("start_index")..at("end_index")]), (&json!("url_citation"), "[1]"));
    let usage = answer.usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.total_tokens), (40, 8, 49));
    Ok(())
}

fn file_search(store: &str) -> Tool {
    let tool = FileSearchTool { vector_store_ids: vec![store.to_owned()], max_num_results: Some(3), filters: None, ranking_options: None };
    Tool::FileSearch(tool)
}

async fn responses_file_search(api: Api) -> Outcome {
    let (store, file) = (api.vector_stores().create(Default::default()).await?.id, upload(&api, "returns of kettles.md").await?);
    api.vector_stores().files(&store).create(attach(&file, None)).await?;
    settled(&api, &store, &file.id).await?;
    let mut asked = response("How long can a kettle be sent back?");
    asked.tools(vec![file_search(&store)]).include(vec![IncludeEnum::FileSearchCallResults]);
    let answer = api.responses().create(asked.build()?).await?;
    let OutputItem::FileSearchCall(call) = &answer.output[0] else { panic!("{answer:?}") };
    let hit = &call.results.as_ref().expect("results were asked for")[0];
    assert_eq!((&call.queries[0], &hit.file_id), (&"How long can a kettle be sent back?".to_owned(), &file.id));
    assert!(hit.text.contains("77 days"));
    let citation = annotations(&answer.output[1]).swap_remove(0);
    assert_eq!((&citation["type"], &citation["file_id"]), (&json!("file_citation"), &json!(file.id)));
    api.vector_stores().delete(&store).await?;
    api.files().delete(&file.id).await?;
    Ok(())
}

async fn responses_streamed_events(api: Api) -> Outcome {
    let mut asked = response(ASK);
    asked.tools(vec![file_search("documents")]);
    let events = events(&api, asked.build()?).await?;
    assert!(matches!(events.first(), Some(ResponseStreamEvent::ResponseCreated(_))), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, ResponseStreamEvent::ResponseFileSearchCallCompleted(_))));
    assert!(events.iter().any(|event| matches!(event, ResponseStreamEvent::ResponseOutputTextAnnotationAdded(_))));
    let deltas = events.iter().filter_map(|event| match event {
        ResponseStreamEvent::ResponseOutputTextDelta(event) => Some(event.delta.as_str()),
        _ => None,
    });
    let text: String = deltas.collect();
    let Some(ResponseStreamEvent::ResponseCompleted(last)) = events.last() else { panic!("{events:?}") };
    assert_eq!(said(&last.response), text);
    assert_eq!(said(&api.responses().create(asked.build()?).await?), text);
    Ok(())
}

async fn responses_instructions(api: Api) -> Outcome {
    let answer = api.responses().create(response("HISTORY").instructions("Be brief.").build()?).await?;
    let sent: Value = serde_json::from_str(&said(&answer))?;
    assert!(sent["messages"][0]["content"].as_str().is_some_and(|text| text.contains("Be brief.")), "{sent}");
    Ok(())
}

async fn responses_go_on_from_an_earlier_one(api: Api) -> Outcome {
    let first = api.responses().create(response("What is your name?").build()?).await?;
    let answer = api.responses().create(response("HISTORY").previous_response_id(first.id.clone()).build()?).await?;
    let sent: Value = serde_json::from_str(&said(&answer))?;
    let messages = sent["messages"].as_array().expect("messages");
    assert_eq!(messages[messages.len() - 2]["content"], json!(said(&first)));
    Ok(())
}

async fn responses_retrieve_and_delete(api: Api) -> Outcome {
    let first = api.responses().create(response(ASK).build()?).await?;
    assert_eq!(said(&api.responses().retrieve(&first.id).await?), said(&first));
    assert!(api.responses().delete(&first.id).await?.deleted);
    refused(api.responses().retrieve(&first.id).await, 404);
    let unstored = api.responses().create(response(ASK).store(false).build()?).await?;
    refused(api.responses().retrieve(&unstored.id).await, 404);
    Ok(())
}

fn function() -> Vec<Tool> {
    let parameters = Some(json!({"type": "object", "properties": {"sku": {"type": "string"}}}));
    vec![Tool::Function(FunctionTool { name: "price".to_owned(), parameters, strict: Some(false), ..FunctionTool::default() })]
}

async fn responses_function_calls(api: Api) -> Outcome {
    let first = api.responses().create(response(ASK).tools(function()).build()?).await?;
    let mut answers = Vec::new();
    for item in &first.output {
        let OutputItem::FunctionCall(call) = item else { panic!("{item:?}") };
        let output = FunctionCallOutputItemParam {
            call_id: Some(call.call_id.clone()),
            output: "89".into(),
            id: None,
            status: None,
            name: None,
            namespace: None,
            caller: None,
        };
        answers.push((call.arguments.clone(), InputItem::Item(Item::FunctionCallOutput(output))));
    }
    let (arguments, outputs): (Vec<String>, Vec<InputItem>) = answers.into_iter().unzip();
    assert_eq!(arguments, [r#"{"sku":"G1"}"#, r#"{"sku":"G2"}"#]);
    let mut next = response(InputParam::Items(outputs));
    next.previous_response_id(first.id).tools(function());
    assert_eq!(said(&api.responses().create(next.build()?).await?), "It costs 89 euro.");
    Ok(())
}

async fn responses_function_calls_streamed(api: Api) -> Outcome {
    let events = events(&api, response(ASK).tools(function()).build()?).await?;
    let done = events.iter().filter_map(|event| match event {
        ResponseStreamEvent::ResponseFunctionCallArgumentsDone(event) => Some(event.arguments.as_str()),
        _ => None,
    });
    assert_eq!(done.collect::<Vec<_>>(), [r#"{"sku":"G1"}"#, r#"{"sku":"G2"}"#]);
    Ok(())
}

async fn responses_images(api: Api) -> Outcome {
    let image = InputImageContent { image_url: Some("data:image/png;base64,AAAA".to_owned()), ..InputImageContent::default() };
    let text = InputTextContent { text: ASK.to_owned(), prompt_cache_breakpoint: None };
    let parts = vec![InputContent::InputText(text), InputContent::InputImage(image)];
    let item: InputItem = serde_json::from_value(json!({"type": "message", "role": "user", "content": parts}))?;
    let answer = api.responses().create(response(InputParam::Items(vec![item])).build()?).await?;
    assert!(said(&answer).contains("data:image/png;base64,AAAA"), "{answer:?}");
    Ok(())
}

async fn responses_incomplete(api: Api) -> Outcome {
    let answer = api.responses().create(response(format!("SHORT {ASK}")).build()?).await?;
    assert_eq!(answer.status, Status::Incomplete);
    assert_eq!(answer.incomplete_details.map(|details| details.reason).as_deref(), Some("max_output_tokens"));
    Ok(())
}

async fn responses_refuse_by_name(api: Api) -> Outcome {
    let found = refused(api.responses().create(response(ASK).background(true).build()?).await, 400);
    assert_eq!((param(&found), code(&found)), (Some("background"), Some("unsupported_parameter")));
    refused(api.responses().create(response(ASK).tools(vec![file_search("vs_none")]).build()?).await, 404);
    Ok(())
}

async fn responses_fail_in_the_middle_of_a_stream(api: Api) -> Outcome {
    let events = events(&api, response(format!("CUT {ASK}")).build()?).await?;
    let Some(ResponseStreamEvent::ResponseFailed(last)) = events.last() else { panic!("{events:?}") };
    assert_eq!(last.response.error.as_ref().map(|error| &error.code), Some(&ResponseErrorCode::ServerError));
    Ok(())
}

// --- what the crate cannot read of OpenAI's own API ---

async fn limit_attributes_with_fractions(_api: Api) -> Outcome {
    assert!(serde_json::from_value::<VectorStoreFileAttributes>(json!({"year": 2026, "name": "kettles", "new": true})).is_ok());
    assert!(serde_json::from_value::<VectorStoreFileAttributes>(json!({"price": 89.5})).is_err(), "the crate reads fractions now");
    Ok(())
}

async fn limit_purposes_of_files(api: Api) -> Outcome {
    let file = upload(&api, "kettles.md").await?;
    let mut sent = serde_json::to_value(&file)?;
    sent["purpose"] = json!("evals");
    assert!(serde_json::from_value::<OpenAIFile>(sent).is_err(), "the crate reads what it may send now");
    api.files().delete(&file.id).await?;
    Ok(())
}
