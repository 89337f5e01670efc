//! Servers that turn documents into text: Apache Tika and Docling Serve.

use crate::{Endpoint, Error};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

/// Which protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtractorKind {
    /// `PUT /tika` of a Tika server: the bytes go in, HTML, Markdown or plain text comes out.
    Tika,
    /// `POST /v1/convert/file` of Docling Serve: a form goes in, JSON with Markdown comes out.
    Docling,
}

/// What kind of text a server gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Markdown.
    Markdown,
    /// A web page.
    Html,
    /// Text without structure.
    Text,
}

/// A document as a server read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedDocument {
    /// What it holds.
    pub text: String,
    /// How that is written.
    pub media: Media,
}

/// A client of an extractor's server.
#[derive(Debug, Clone)]
pub struct DocumentExtractor {
    endpoint: Endpoint,
    kind: ExtractorKind,
    max_text_bytes: usize,
}

#[derive(Deserialize)]
struct DoclingAnswer {
    document: Option<DoclingDocument>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    errors: Vec<DoclingProblem>,
}

#[derive(Deserialize)]
struct DoclingDocument {
    md_content: Option<String>,
}

#[derive(Deserialize)]
struct DoclingProblem {
    #[serde(default)]
    error_message: String,
}

impl DocumentExtractor {
    /// `endpoint` is the server's root: `http://127.0.0.1:9998`. A longer answer than `max_text_bytes` is an error.
    pub fn new(endpoint: Endpoint, kind: ExtractorKind, max_text_bytes: usize) -> Self {
        Self { endpoint, kind, max_text_bytes }
    }

    /// Sends one document and waits for its text.
    pub async fn extract(&self, name: &str, bytes: Vec<u8>) -> Result<ExtractedDocument, Error> {
        // Only the name itself leaves this machine, not the folders above it.
        let name = name.rsplit('/').next().unwrap_or(name);
        match self.kind {
            ExtractorKind::Tika => self.ask_tika(name, bytes).await,
            ExtractorKind::Docling => self.ask_docling(name, bytes).await,
        }
    }

    /// Tika 4 listens to the handler's header, older ones to `Accept`; both say in `Content-Type` what they gave.
    async fn ask_tika(&self, name: &str, bytes: Vec<u8>) -> Result<ExtractedDocument, Error> {
        let ascii: String = name.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' }).collect();
        let request = self
            .endpoint
            .request(Method::PUT, "/tika")
            .header(ACCEPT, "text/markdown, text/html;q=0.9, text/plain;q=0.5")
            .header("X-Tika-Handler", "markdown")
            .header(CONTENT_DISPOSITION, format!("attachment; filename=\"{ascii}\""))
            .body(bytes);
        let response = self.endpoint.send(request).await?;
        let media = match response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default() {
            given if given.starts_with("text/markdown") => Media::Markdown,
            given if given.starts_with("text/html") || given.starts_with("application/xhtml") => Media::Html,
            given if given.starts_with("text/plain") => Media::Text,
            other => return Err(self.endpoint.protocol(format!("`{other}` instead of text"))),
        };
        let body = self.endpoint.read_within(response, self.max_text_bytes).await?;
        let text = String::from_utf8(body).map_err(|_| self.endpoint.protocol("text that is not UTF-8".to_owned()))?;
        Ok(ExtractedDocument { text, media })
    }

    async fn ask_docling(&self, name: &str, bytes: Vec<u8>) -> Result<ExtractedDocument, Error> {
        let form = Form::new()
            .text("to_formats", "md")
            .text("image_export_mode", "placeholder")
            .part("files", Part::bytes(bytes).file_name(name.to_owned()));
        let request = self.endpoint.request(Method::POST, "/v1/convert/file").multipart(form);
        let response = self.endpoint.send(request).await?;
        // JSON writes a line end or a quote with two bytes.
        let body = self.endpoint.read_within(response, self.max_text_bytes.saturating_mul(2)).await?;
        let answer: DoclingAnswer = serde_json::from_slice(&body).map_err(|error| self.endpoint.protocol(error.to_string()))?;
        match answer.document.and_then(|document| document.md_content) {
            Some(text) => Ok(ExtractedDocument { text, media: Media::Markdown }),
            None => {
                let said: Vec<String> = answer.errors.into_iter().map(|problem| problem.error_message).collect();
                Err(self.endpoint.protocol(format!("status `{}` without a document: {}", answer.status, said.join("; "))))
            }
        }
    }
}
