//! The web client against a site on a real socket: hostile redirects, endless bodies, and what robots.txt asks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use groundtone_provider::{WebClient, WebError, WebPage, WebRequest, WebSettings};
use groundtone_testkit::{Page, Site};
use std::time::{Duration, Instant};
use url::Url;

fn settings(allowed: &[&str]) -> WebSettings {
    WebSettings {
        user_agent: "groundtone/1.0 (+https://example.com)".to_owned(),
        allow_private_hosts: allowed.iter().map(|host| (*host).to_owned()).collect(),
        timeout: Duration::from_secs(2),
        idle: Duration::from_millis(500),
    }
}

async fn get(client: &WebClient, address: &str) -> Result<WebPage, WebError> {
    client.get(WebRequest { url: &Url::parse(address).unwrap(), max_bytes: 10_000, stay_on_site: false }).await
}

/// Asks a site that may be private, by the name of `localhost`.
async fn get_allowed(site: &Site, path: &str) -> Result<WebPage, WebError> {
    get(&WebClient::new(&settings(&["localhost"])).unwrap(), &format!("http://localhost:{}{path}", site.port)).await
}

#[tokio::test]
async fn a_page_arrives_with_its_type_and_without_our_secrets() {
    let site = Site::start([("/a?x=1", Page::html("<p>hello</p>"))]).await;
    let page = get_allowed(&site, "/a?x=1").await.unwrap();
    assert_eq!(
        (page.bytes.as_slice(), page.media_type.as_deref(), page.charset.as_deref()),
        (&b"<p>hello</p>"[..], Some("text/html"), Some("utf-8"))
    );
    let visits = site.visits();
    assert_eq!(site.paths(), ["/robots.txt", "/a?x=1"]);
    for visit in visits {
        assert_eq!(visit.user_agent, "groundtone/1.0 (+https://example.com)");
        assert!(!visit.headers.iter().any(|name| ["cookie", "authorization", "referer", "accept-encoding"].contains(&name.as_str())));
    }
}

#[tokio::test]
async fn a_private_address_is_refused_before_anything_is_sent() {
    let site = Site::start([("/", Page::html("secret"))]).await;
    let stranger = WebClient::new(&settings(&[])).unwrap();
    for host in ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "LOCALHOST"] {
        let error = get(&stranger, &format!("http://{host}:{}/", site.port)).await.unwrap_err();
        assert!(matches!(error, WebError::Private { .. }), "{host}: {error:?}");
        assert!(error.to_string().contains("name the host in `sources.allow_private_hosts`"), "{error}");
    }
    assert!(site.paths().is_empty());
}

#[tokio::test]
async fn no_redirect_leads_into_the_private_network() {
    let targets = [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:1/",
        "http://0x7f.1:1/",
        "http://[::ffff:169.254.169.254]/",
        "//10.0.0.1/",
        "{site}/private",
    ];
    for target in targets {
        let site = Site::start([("/", Page::To(target.to_owned())), ("/private", Page::html("secret"))]).await;
        let error = get_allowed(&site, "/").await.unwrap_err();
        assert!(matches!(error, WebError::Private { .. }), "{target}: {error:?}");
    }
    for target in ["file:///etc/passwd", "ftp://example.com/", "http://user:pass@localhost/"] {
        let site = Site::start([("/", Page::To(target.to_owned()))]).await;
        assert!(matches!(get_allowed(&site, "/").await, Err(WebError::Address(_))), "{target}");
    }
    // robots.txt is fetched by the same rules.
    let site = Site::start([("/robots.txt", Page::To("http://169.254.169.254/".to_owned())), ("/", Page::html("x"))]).await;
    let error = get_allowed(&site, "/").await.unwrap_err();
    assert!(error.to_string().contains("robots.txt is refused: 169.254.169.254"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_five_times_and_not_off_the_site_where_that_matters() {
    let hops: Vec<String> = (0..8).map(|n| format!("/{n}")).collect();
    let pages =
        hops.iter().enumerate().map(|(n, path)| (path.as_str(), if n == 7 { Page::html("end") } else { Page::To(format!("/{}", n + 1)) }));
    let site = Site::start(pages).await;
    let page = get_allowed(&site, "/2").await.unwrap();
    assert_eq!((page.url.path(), page.bytes.as_slice()), ("/7", &b"end"[..]));
    assert_eq!(get_allowed(&site, "/1").await.unwrap_err().to_string(), "redirects more than 5 times");

    let site = Site::start([("/", Page::To("{site}/there".to_owned())), ("/there", Page::html("x"))]).await;
    let client = WebClient::new(&settings(&["localhost", "127.0.0.1"])).unwrap();
    let url = Url::parse(&format!("http://localhost:{}/", site.port)).unwrap();
    let error = client.get(WebRequest { url: &url, max_bytes: 100, stay_on_site: true }).await.unwrap_err();
    assert_eq!(error.to_string(), format!("redirects to another site: {}/there", site.url));
    assert!(client.get(WebRequest { url: &url, max_bytes: 100, stay_on_site: false }).await.is_ok());
}

#[tokio::test]
async fn no_body_is_larger_or_slower_than_it_may_be() {
    let pages = [
        ("/endless", Page::Endless),
        ("/large", Page::html(&"x".repeat(10_001))),
        ("/drip", Page::Drip(Duration::from_millis(100))),
        ("/stall", Page::Drip(Duration::from_secs(60))),
        ("/silence", Page::Silence),
        ("/gone", Page::Status(410)),
    ];
    let site = Site::start(pages).await;
    let too_large = |bytes| WebError::TooLarge { bytes, limit: 10_000 };
    let cases = [
        ("/endless", too_large(None)),
        ("/large", too_large(Some(10_001))),
        ("/drip", WebError::Timeout(2)),
        ("/stall", WebError::Timeout(0)),
        ("/silence", WebError::Timeout(0)),
        ("/gone", WebError::Status(410)),
    ];
    for (path, error) in cases {
        let started = Instant::now();
        assert_eq!(get_allowed(&site, path).await, Err(error), "{path}");
        assert!(started.elapsed() < Duration::from_secs(3), "{path}");
    }
}

#[tokio::test]
async fn a_busy_site_is_asked_again_when_it_says() {
    let site = Site::start([("/soon", Page::Busy(2, "here")), ("/never", Page::Busy(9, "here"))]).await;
    assert_eq!(get_allowed(&site, "/soon").await.unwrap().bytes, b"here");
    assert_eq!(get_allowed(&site, "/never").await.unwrap_err(), WebError::Status(429));
    assert_eq!(site.paths().iter().filter(|path| *path == "/never").count(), 3);
}

#[tokio::test]
async fn robots_are_asked_what_they_may_read() {
    let robots = "User-agent: *\nDisallow: /\n\nUser-agent: Groundtone\nDisallow: /private\nAllow: /private/faq\nCrawl-delay: 0.3\n";
    let pages = [
        ("/robots.txt", Page::Text("text/plain", robots.to_owned())),
        ("/a", Page::html("a")),
        ("/b", Page::html("b")),
        ("/private/x", Page::html("x")),
        ("/private/faq", Page::html("faq")),
        ("/to-private", Page::To("/private/x".to_owned())),
    ];
    let site = Site::start(pages).await;
    let client = WebClient::new(&settings(&["127.0.0.1"])).unwrap();
    let ask = async |path: &str| get(&client, &format!("{}{path}", site.url)).await.map(|_| ());
    let refused = Err(WebError::Robots { site: site.url.clone() });
    assert_eq!(ask("/private/x").await, refused);
    assert_eq!(ask("/to-private").await, refused);
    let (a, b, faq) = tokio::join!(ask("/a"), ask("/b"), ask("/private/faq"));
    assert_eq!((a, b, faq), (Ok(()), Ok(()), Ok(())));
    let visits = site.visits();
    assert_eq!(visits.iter().filter(|visit| visit.path == "/robots.txt").count(), 1, "asked once");
    assert!(!site.paths().contains(&"/private/x".to_owned()));
    for pair in visits.windows(2).skip(1) {
        assert!(pair[1].at - pair[0].at > Duration::from_millis(250), "no pause before {}", pair[1].path);
    }
}

#[tokio::test]
async fn without_an_answer_about_robots_nothing_is_read() {
    for (robots, reason) in [
        (Page::Status(500), "is answered with status 500"),
        (Page::Status(429), "is answered with status 429"),
        (Page::Silence, "did not arrive within"),
    ] {
        let site = Site::start([("/robots.txt", robots), ("/", Page::html("x"))]).await;
        let error = get_allowed(&site, "/").await.unwrap_err();
        assert!(matches!(&error, WebError::RobotsUnknown { reason: why, .. } if why.contains(reason)), "{error}");
        assert_eq!(site.paths(), ["/robots.txt"]);
    }
    for robots in [Page::Status(404), Page::Status(403), Page::html("<html>not found</html>"), Page::Endless] {
        let site = Site::start([("/robots.txt", robots.clone()), ("/", Page::html("x"))]).await;
        assert!(get_allowed(&site, "/").await.is_ok(), "{robots:?}");
    }
}
