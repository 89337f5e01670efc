use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use groundtone_openai_api::{ErrorBody, ErrorObject};
use groundtone_types::ErrorKind;
use serde::de::DeserializeOwned;
use std::any::Any;
use tracing::{error, warn};

/// Seconds that an overloaded server asks its clients to wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// An error as OpenAI's clients expect it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    pub(crate) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The one place where kinds become status codes. What is our fault is logged with its cause and answered without it.
    pub(crate) fn of(kind: ErrorKind, cause: &dyn std::error::Error) -> Self {
        let status = match kind {
            ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unavailable => StatusCode::BAD_GATEWAY,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(error = %cause, "request failed");
            return Self::new(status, "the server failed; its log has the cause under this request's x-request-id");
        }
        if status.is_server_error() {
            warn!(error = %cause, "a model server or a store failed");
        }
        Self::new(status, cause.to_string())
    }

    pub(crate) fn body(&self) -> ErrorBody {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let code = self.code.map(|code| serde_json::Value::String(code.to_owned()));
        ErrorBody {
            error: ErrorObject { message: self.message.clone(), kind: kind.to_owned(), param: self.param.map(str::to_owned), code },
        }
    }
}

impl From<groundtone_answer::Error> for ApiError {
    fn from(error: groundtone_answer::Error) -> Self {
        let api = Self::of(error.kind(), &error);
        match error {
            groundtone_answer::Error::Conversation(_) => Self { param: Some("messages"), ..api },
            groundtone_answer::Error::Prompt(_) | groundtone_answer::Error::Model(groundtone_provider::Error::PromptTooLong { .. }) => {
                Self { param: Some("messages"), ..api }.code("context_length_exceeded")
            }
            _ => api,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// A handler's panic is one request's 500, and the process goes on.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands the panic over")]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    error!(panic = text, "a handler panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log has the cause under this request's x-request-id")
        .into_response()
}

/// A JSON body whose problems are answered in OpenAI's shape.
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let status =
                    if rejection.status() == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { rejection.status() };
                let message = match &rejection {
                    JsonRejection::JsonDataError(error) => format!("the request's JSON has the wrong shape: {}", cause(error)),
                    JsonRejection::JsonSyntaxError(error) => format!("the request is not JSON: {}", cause(error)),
                    JsonRejection::MissingJsonContentType(_) => "send `content-type: application/json`".to_owned(),
                    other => other.body_text(),
                };
                Err(ApiError::new(status, message))
            }
        }
    }
}

/// The innermost error: axum's own sentence around it says nothing more.
fn cause(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
