//! The clients of document extractors against a scripted server over real sockets. The bytes follow the servers' documentation; no real server runs here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use groundtone_provider::{DocumentExtractor, Endpoint, Error, ExtractedDocument, ExtractorKind, Media};
use groundtone_testkit::{Reply, ScriptedServer};
use groundtone_types::ErrorKind;
use std::time::Duration;

async fn ask(kind: ExtractorKind, reply: Reply) -> (Result<ExtractedDocument, Error>, serde_json::Value) {
    let server = ScriptedServer::start([reply]).await;
    let limit = Duration::from_millis(500);
    let endpoint = Endpoint::new(server.root(), None, limit, limit, limit).unwrap();
    let result = DocumentExtractor::new(endpoint, kind, 1000).extract("offers/Größe \"1\".doc", b"old words".to_vec()).await;
    (result, server.requests().remove(0))
}

fn raw(status: u16, media: &'static str, body: &str) -> Reply {
    Reply::Raw(status, media, body.to_owned())
}

#[tokio::test]
async fn tika_gets_the_bytes_and_says_what_it_gives() {
    let cases = [("text/markdown", Media::Markdown), ("text/html; charset=UTF-8", Media::Html), ("text/plain", Media::Text)];
    for (given, media) in cases {
        let (found, sent) = ask(ExtractorKind::Tika, raw(200, given, "# Offer")).await;
        assert_eq!(found.unwrap(), ExtractedDocument { text: "# Offer".to_owned(), media });
        assert_eq!((sent["path"].as_str(), sent["body"].as_str()), (Some("/tika"), Some("old words")));
        assert!(sent["accept"].as_str().unwrap().starts_with("text/markdown"));
        assert_eq!(sent["content-disposition"], "attachment; filename=\"Gr__e__1_.doc\"");
    }
}

#[tokio::test]
async fn docling_gets_a_form_and_answers_markdown() {
    let (found, sent) = ask(
        ExtractorKind::Docling,
        raw(200, "application/json", r##"{"document":{"md_content":"# Offer\n"},"status":"success","errors":[],"processing_time":0.1}"##),
    )
    .await;
    assert_eq!(found.unwrap(), ExtractedDocument { text: "# Offer\n".to_owned(), media: Media::Markdown });
    assert_eq!(sent["path"], "/v1/convert/file");
    assert!(sent["content-type"].as_str().unwrap().starts_with("multipart/form-data; boundary="));
    let body = sent["body"].as_str().unwrap();
    assert!(
        body.contains("name=\"to_formats\"\r\n\r\nmd\r\n") && body.contains("name=\"files\"") && body.contains("\r\n\r\nold words\r\n"),
        "{body}"
    );
    assert!(!body.contains("offers/"), "folders stay at home: {body}");
}

#[tokio::test]
async fn every_misbehaviour_is_one_typed_error() {
    let failed = r#"{"document":{"md_content":null},"status":"failure","errors":[{"component_type":"x","module_name":"y","error_message":"no such format"}]}"#;
    let cases = [
        (ExtractorKind::Tika, raw(422, "text/plain", "encrypted"), ErrorKind::InvalidRequest, "answered 422: encrypted"),
        (ExtractorKind::Tika, raw(200, "application/json", "{}"), ErrorKind::Unavailable, "`application/json` instead of text"),
        (ExtractorKind::Tika, raw(200, "text/plain", &"x".repeat(1001)), ErrorKind::Unavailable, "larger than 1000 bytes"),
        (ExtractorKind::Tika, Reply::Silence, ErrorKind::Timeout, "did not answer within"),
        (
            ExtractorKind::Docling,
            raw(200, "application/json", failed),
            ErrorKind::Unavailable,
            "status `failure` without a document: no such format",
        ),
        (ExtractorKind::Docling, raw(200, "application/json", "{"), ErrorKind::Unavailable, "something unexpected"),
        (ExtractorKind::Docling, raw(503, "text/plain", "busy"), ErrorKind::Unavailable, "answered 503: busy"),
    ];
    for (kind, reply, wanted, sentence) in cases {
        let error = ask(kind, reply.clone()).await.0.unwrap_err();
        assert_eq!(error.kind(), wanted, "{reply:?}: {error}");
        assert!(error.to_string().contains(sentence), "{reply:?}: {error}");
    }
}
