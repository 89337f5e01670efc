//! async-openai, unmodified, against a server: one line `ok NAME` for each case of docs/reference/conformance.md.
//!
//! `conformance-async-openai answers BASE_URL` asks the shop of `tests/stories/conformance.rs`,
//! `conformance-async-openai tuning BASE_URL BASE_MODEL` the one of `tests/stories/tuning.rs`.

mod answers;
mod tuning;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::{ApiErrorResponse, OpenAIError};
use std::error::Error;
use std::process::ExitCode;

/// What every case is given.
type Api = Client<OpenAIConfig>;
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs every case, whatever became of the others; gives how many failed. A panic is a failed case, its text is on standard error.
macro_rules! run {
    ($given:expr; $($case:ident),+ $(,)?) => {{
        let mut failed = 0;
        $(match tokio::spawn($case($given.clone())).await {
            Ok(Ok(())) => println!("ok {}", stringify!($case)),
            Ok(Err(problem)) => {
                failed += 1;
                eprintln!("FAILED {} {problem}", stringify!($case));
            }
            Err(_) => {
                failed += 1;
                eprintln!("FAILED {}", stringify!($case));
            }
        })+
        failed
    }};
}
use run;

/// The error of a call that must be refused.
fn refused<T: std::fmt::Debug>(outcome: Result<T, OpenAIError>, status: u16) -> ApiErrorResponse {
    match outcome {
        Err(OpenAIError::ApiError(found)) => {
            assert_eq!(found.status_code.as_u16(), status, "{found}");
            found
        }
        other => panic!("expected {status}: {other:?}"),
    }
}

/// The parameter that a refusal names.
fn param(found: &ApiErrorResponse) -> Option<&str> {
    found.api_error.param.as_deref()
}

/// The code that a refusal has.
fn code(found: &ApiErrorResponse) -> Option<&str> {
    found.api_error.code.as_deref()
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let api = |url: &str| Client::with_config(OpenAIConfig::new().with_api_base(url).with_api_key("unused"));
    let failed = match words.as_slice() {
        ["answers", url] => answers::run_all(api(url)).await,
        ["tuning", url, model] => tuning::run_all(api(url), model).await,
        _ => {
            eprintln!("usage: conformance-async-openai answers BASE_URL | tuning BASE_URL BASE_MODEL");
            return ExitCode::from(2);
        }
    };
    ExitCode::from(u8::from(failed > 0))
}
