//! What a site asks of robots: which pages they leave alone and how long they pause. Asked once for each site of a run.

use super::{WebClient, WebError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use texting_robots::Robot;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

/// As much of a robots.txt as is read (RFC 9309).
const ROBOTS_BYTES: usize = 500 * 1024;
/// A site that asks for longer pauses is asked this often.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

enum Rules {
    /// There is no robots.txt.
    None,
    Some(Robot),
    /// Nothing may be read: nobody knows what the rules are, or the site is not to be reached at all.
    Closed(WebError),
}

struct Site {
    rules: Rules,
    delay: Duration,
    next: Mutex<Instant>,
}

pub(super) struct Robots {
    /// The name that robots.txt may call us by.
    token: String,
    sites: Mutex<HashMap<String, Arc<OnceCell<Site>>>>,
}

impl Robots {
    /// `groundtone/1.0 (+https://...)` goes by `groundtone`.
    pub(super) fn new(user_agent: &str) -> Self {
        let token = user_agent.split(['/', ' ']).next().unwrap_or_default().to_owned();
        Self { token, sites: Mutex::default() }
    }

    /// Waits for our turn at the page's site; an error if the site does not want the page read.
    pub(super) async fn admit(&self, client: &WebClient, url: &Url) -> Result<(), WebError> {
        let origin = url.origin().ascii_serialization();
        let cell = self.sites.lock().unwrap_or_else(PoisonError::into_inner).entry(origin.clone()).or_default().clone();
        let site = cell.get_or_init(|| self.ask(client, url)).await;
        match &site.rules {
            Rules::Closed(error) => return Err(error.clone()),
            Rules::Some(robot) if !robot.allowed(url.as_str()) => return Err(WebError::Robots { site: origin }),
            Rules::Some(_) | Rules::None => {}
        }
        tokio::time::sleep_until(site.turn()).await;
        Ok(())
    }

    async fn ask(&self, client: &WebClient, url: &Url) -> Site {
        let answer = match url.join("/robots.txt") {
            Ok(address) => client.follow(&address, ROBOTS_BYTES).await,
            Err(_) => Err(WebError::Address("it has no robots.txt")),
        };
        let unknown = |reason: String| Rules::Closed(WebError::RobotsUnknown { site: url.origin().ascii_serialization(), reason });
        let rules = match answer {
            Ok(bytes) => self.parse(bytes).await.map_or_else(unknown, Rules::Some),
            Err(WebError::Status(status)) if status != 429 && status < 500 => Rules::None,
            // What is wrong is the page's own host, not its robots.txt.
            Err(WebError::Private { host, address }) if Some(host.as_str()) == url.host_str() => {
                Rules::Closed(WebError::Private { host, address })
            }
            Err(error) => unknown(error.to_string()),
        };
        let asked = match &rules {
            Rules::Some(robot) => robot.delay.unwrap_or_default(),
            Rules::None | Rules::Closed(_) => 0.0,
        };
        let delay =
            if asked > 0.0 { Duration::try_from_secs_f32(asked).unwrap_or(LONGEST_DELAY).min(LONGEST_DELAY) } else { Duration::ZERO };
        Site { rules, delay, next: Mutex::new(Instant::now()) }
    }

    /// Every rule becomes a regular expression: too much work for a thread that serves others.
    async fn parse(&self, bytes: Vec<u8>) -> Result<Robot, String> {
        let token = self.token.clone();
        match tokio::task::spawn_blocking(move || Robot::new(&token, &bytes)).await {
            Ok(Ok(robot)) => Ok(robot),
            Ok(Err(error)) => Err(format!("cannot be understood: {error}")),
            Err(_) => Err("cannot be understood".to_owned()),
        }
    }
}

impl Site {
    /// Takes the next free turn.
    fn turn(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + self.delay;
        turn
    }
}
