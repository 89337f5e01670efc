use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use groundtone_openai_api::{ErrorBody, ErrorObject};
use groundtone_types::ErrorKind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::Any;
use std::time::Duration;
use tracing::{error, warn};

/// How long an overloaded server asks its clients to wait, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An error as OpenAI's clients expect it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    detail: Box<Detail>,
}

/// What few errors have.
#[derive(Debug, Default)]
struct Detail {
    /// `type`, where the status does not say it.
    kind: Option<String>,
    param: Option<String>,
    code: Option<Value>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), detail: Box::default() }
    }

    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message).param(param)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.detail.param = Some(param.into());
        self
    }

    /// The same about a field that is called otherwise in this API.
    pub(crate) fn renamed(self, from: &str, to: &str) -> Self {
        if self.detail.param.as_deref() == Some(from) { self.param(to) } else { self }
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.detail.code = Some(Value::String(code.to_owned()));
        self
    }

    /// When to come back.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.detail.retry_after = Some(wait);
        self
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
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let code = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some("rate_limit_exceeded"),
            StatusCode::BAD_GATEWAY => Some("upstream_error"),
            StatusCode::SERVICE_UNAVAILABLE => Some("upstream_unavailable"),
            StatusCode::GATEWAY_TIMEOUT => Some("timeout"),
            _ => None,
        };
        let code = self.detail.code.clone().or_else(|| code.map(|code| Value::String(code.to_owned())));
        let kind = self.detail.kind.clone().unwrap_or_else(|| kind.to_owned());
        ErrorBody { error: ErrorObject { message: self.message.clone(), kind, param: self.detail.param.clone(), code } }
    }
}

impl From<groundtone_answer::Error> for ApiError {
    fn from(error: groundtone_answer::Error) -> Self {
        let api = Self::of(error.kind(), &error);
        match error {
            groundtone_answer::Error::Conversation(_) => api.param("messages"),
            groundtone_answer::Error::Prompt(_) => api.param("messages").code("context_length_exceeded"),
            groundtone_answer::Error::Model(error) => api.of_model(error),
            _ => api,
        }
    }
}

impl ApiError {
    /// What a model's error says beyond its kind. A model server's refusal of the client's own request comes through as it is.
    fn of_model(mut self, error: groundtone_provider::Error) -> Self {
        use groundtone_provider::Error;
        self.detail.retry_after = error.retry_after();
        match error {
            Error::PromptTooLong { .. } => self.param("messages").code("context_length_exceeded"),
            Error::Unsupported { parameter, .. } => {
                let field = parameter.split(['[', ':']).next().unwrap_or_default().to_owned();
                self.param(field).code("unsupported_parameter")
            }
            Error::Resting { .. } => Self { status: StatusCode::SERVICE_UNAVAILABLE, ..self },
            Error::Refused { detail: Some(theirs), .. } if self.status == StatusCode::BAD_REQUEST => {
                let kind = Some(theirs.kind).filter(|kind| !kind.is_empty());
                let code = theirs.code.filter(|code| !code.is_null());
                Self { message: theirs.message, detail: Box::new(Detail { kind, param: theirs.param, code, retry_after: None }), ..self }
            }
            _ => self,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            // Whole seconds, rounded up: nobody comes back too early.
            let seconds = self.detail.retry_after.unwrap_or(RETRY_AFTER).as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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

/// A query whose problems are answered in OpenAI's shape.
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the query has the wrong shape: {}", cause(&rejection)))),
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
