use groundtone_types::ErrorKind;
use std::net::IpAddr;

/// Why a page was not fetched. Each follows the page's address in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// Not an address that is fetched.
    #[error("is not a web address that can be fetched: {0}")]
    Address(&'static str),
    /// The host is on a private network, and nobody said that it may be.
    #[error(
        "is refused: {host} is at {address}, which is not a public address; name the host in `sources.allow_private_hosts` to allow it"
    )]
    Private {
        /// The host as the address names it.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
    /// The site asks robots not to read this page.
    #[error("is refused by {site}/robots.txt")]
    Robots {
        /// Scheme, host and port.
        site: String,
    },
    /// Without an answer about robots nothing of a site is read.
    #[error("is not read because {site}/robots.txt {reason}")]
    RobotsUnknown {
        /// Scheme, host and port.
        site: String,
        /// Why there is no answer.
        reason: String,
    },
    /// A chain of redirects that does not end.
    #[error("redirects more than {0} times")]
    Redirects(usize),
    /// A redirect to where this source does not go.
    #[error("redirects to another site: {0}")]
    OtherSite(String),
    /// The site does not hand out the page.
    #[error("is answered with status {0}")]
    Status(u16),
    /// The body is too large.
    #[error("has more than {limit} bytes")]
    TooLarge {
        /// What the site announced.
        bytes: Option<u64>,
        /// What is read.
        limit: u64,
    },
    /// The body is not what was asked for; the reason comes from whoever read it.
    #[error("{0}")]
    Content(String),
    /// It took too long, or it was silent for too long.
    #[error("did not arrive within {0} s")]
    Timeout(u64),
    /// The site could not be reached, or hung up.
    #[error("cannot be fetched: {0}")]
    Unreachable(String),
}

impl WebError {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Status(_) | Self::Unreachable(_) | Self::RobotsUnknown { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::InvalidRequest,
        }
    }
}
