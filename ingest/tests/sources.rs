//! Sites and buckets as sources, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use groundtone_ingest::source::{self, Offer, Source, SourceItem, SourceSettings};
use groundtone_testkit::{Bucket, Object, Page, Site};
use std::io::Write;
use std::time::{Duration, Instant};

fn settings() -> SourceSettings {
    SourceSettings { allow_private_hosts: vec!["127.0.0.1".into()], web_timeout: Duration::from_secs(5), ..SourceSettings::default() }
}

fn open(location: &str, settings: &SourceSettings) -> Box<dyn Source> {
    source::open(location, settings).unwrap()
}

/// Documents, and what else was found, in sentences.
async fn list(source: &dyn Source) -> Result<(Vec<SourceItem>, Vec<String>), String> {
    let (mut items, mut others) = (Vec::new(), Vec::new());
    let mut offers = source.offers();
    while let Some(offer) = offers.next().await {
        match offer.map_err(|error| error.to_string())? {
            Offer::Item(item) => items.push(item),
            Offer::Unreadable { place, reason } => others.push(format!("{place} {reason}")),
            Offer::Parts { id, count } => others.push(format!("{id} in {count} parts")),
            Offer::Ignored => others.push("ignored".to_owned()),
        }
    }
    Ok((items, others))
}

fn urlset(pages: &[(&str, &str)]) -> Page {
    let entry = |(address, modified): &(&str, &str)| format!("<url><loc>{address}</loc><lastmod>{modified}</lastmod></url>");
    Page::Text("application/xml", format!("<urlset>{}</urlset>", pages.iter().map(entry).collect::<String>()))
}

fn index(sitemaps: &[&str]) -> Page {
    let entry = |address: &&str| format!("<sitemap><loc>{address}</loc></sitemap>");
    Page::Text("application/xml", format!("<sitemapindex>{}</sitemapindex>", sitemaps.iter().map(entry).collect::<String>()))
}

fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    (0..times).for_each(|_| encoder.write_all(bytes).unwrap());
    encoder.finish().unwrap()
}

fn ids(items: &[SourceItem], site: &Site) -> Vec<String> {
    items.iter().map(|item| item.id.as_str().replace(&format!("127.0.0.1:{}", site.port), "SITE")).collect()
}

#[tokio::test]
async fn one_page_is_a_source() {
    let site = Site::start([("/returns", Page::html("<title>Returns</title>30 days")), ("/no", Page::Status(404))]).await;
    let source = open(&format!("{}/returns#top", site.url), &settings());
    let (items, others) = list(&*source).await.unwrap();
    assert_eq!((ids(&items, &site), others, source.is_complete()), (vec!["SITE/returns".to_owned()], vec![], false));
    assert_eq!((items[0].name.as_str(), &items[0].version, &items[0].url), ("returns.html", &None, &format!("{}/returns", site.url)));
    let content = source.read(&items[0], 1000).await.unwrap();
    assert_eq!((content.media_type.as_deref(), content.charset.as_deref()), (Some("text/html"), Some("utf-8")));
    assert_eq!(source.read(&items[0], 10).await.unwrap_err(), "has 29 bytes; at most 10 are read (`ingest.max_file_bytes`)");
    let missing = open(&format!("{}/no", site.url), &settings());
    let (items, _) = list(&*missing).await.unwrap();
    assert_eq!(missing.read(&items[0], 10).await.unwrap_err(), "is answered with status 404");
    let stranger = open(&site.url, &SourceSettings::default());
    let (items, _) = list(&*stranger).await.unwrap();
    assert!(
        stranger.read(&items[0], 10).await.unwrap_err().starts_with("is refused: 127.0.0.1 is at 127.0.0.1, which is not a public address")
    );
}

#[tokio::test]
async fn a_sitemap_names_pages_of_its_own_site() {
    let pages = [
        ("{site}/a", "2020-01-01"),
        ("{site}/b.md?x=1&amp;y=2", "2026-11-20T08:00:00Z"),
        ("{site}/a#part", "2020-01-01"),
        ("https://elsewhere.example/c", "2020-01-01"),
        ("ftp://elsewhere.example/c", ""),
        ("/relative", ""),
        ("{site}/away", "not a date"),
    ];
    let site = Site::start([
        (
            "/index.xml",
            index(&[
                "{site}/one.xml",
                "{site}/two.xml.gz",
                "{site}/one.xml",
                "{site}/deep.xml",
                "https://elsewhere.example/s.xml",
                "{site}/none.xml",
            ]),
        ),
        ("/one.xml", urlset(&pages)),
        ("/two.xml.gz", Page::Bytes("application/gzip", "x-gzip", gzip(b"<urlset><url><loc>http://127.0.0.1/d</loc></url></urlset>", 1))),
        ("/deep.xml", index(&["{site}/deeper.xml"])),
        ("/deeper.xml", index(&["{site}/deepest.xml"])),
        ("/away", Page::To("http://localhost:1/".to_owned())),
        ("/a", Page::Bytes("text/html", "gzip", gzip(b"<p>packed</p>", 100))),
    ])
    .await;
    let source = open(&format!("{}/index.xml", site.url), &settings());
    let (items, others) = list(&*source).await.unwrap();
    assert_eq!(ids(&items, &site), ["SITE/a", "SITE/b.md?x=1&y=2", "SITE/away"]);
    let versions: Vec<Option<&str>> = items.iter().map(|item| item.version.as_deref()).collect();
    assert_eq!(versions, [Some("lastmod 2020-01-01"), Some("lastmod 2026-11-20T08:00:00Z"), None]);
    let others: Vec<String> = others.iter().map(|line| line.replace(&site.url, "SITE")).collect();
    let expected = [
        "https://elsewhere.example/s.xml is on another site",
        "https://elsewhere.example/c is on another site",
        "ftp://elsewhere.example/c is not a web address",
        "/relative is not an address: relative URL without a base",
        "http://127.0.0.1/d is on another site",
        "SITE/none.xml is answered with status 404",
        "SITE/deeper.xml is an index of sitemaps too many levels down",
    ];
    assert_eq!(others, expected);
    assert!(!source.is_complete(), "parts of the listing are missing");
    assert_eq!(source.read(&items[2], 1000).await.unwrap_err(), "redirects to another site: http://localhost:1/");
    assert_eq!(source.read(&items[0], 5000).await.unwrap().bytes, b"<p>packed</p>".repeat(100));
    assert_eq!(source.read(&items[0], 1000).await.unwrap_err(), "has more than 1000 bytes when it is unpacked");
}

#[tokio::test]
async fn a_whole_sitemap_is_complete_and_one_beyond_the_limit_is_not() {
    let site = Site::start([("/pages", urlset(&[("{site}/a", ""), ("{site}/b", ""), ("{site}/c", "")]))]).await;
    let location = format!("sitemap:{}/pages", site.url);
    let whole = open(&location, &settings());
    assert_eq!(list(&*whole).await.unwrap().0.len(), 3);
    assert!(whole.is_complete());
    let limited = open(&location, &SourceSettings { web_max_pages: 2, ..settings() });
    let (items, others) = list(&*limited).await.unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(others, [format!("{}/pages names more than 2 pages; the rest is left out (`sources.web_max_pages`)", site.url)]);
    assert!(!limited.is_complete());
}

#[tokio::test]
async fn a_sitemap_that_cannot_be_read_ends_the_run() {
    let bomb = gzip(&vec![b' '; 1 << 20], 2_000);
    let pages = [
        ("/bomb.xml.gz", Page::Bytes("application/gzip", "", bomb)),
        ("/endless.xml", Page::Endless),
        ("/html.xml", Page::html("<html><p>sorry</p></html>")),
        ("/empty.xml", Page::Text("application/xml", "<urlset></urlset>".to_owned())),
        ("/foreign.xml", urlset(&[("https://elsewhere.example/", "")])),
        ("/broken.xml", Page::Status(503)),
    ];
    let site = Site::start(pages).await;
    for (path, reason) in [
        ("/bomb.xml.gz", "it has more than 52428800 bytes when it is unpacked"),
        ("/endless.xml", "it has more than 52428800 bytes"),
        ("/html.xml", "it is not a sitemap: it begins with <html>"),
        ("/empty.xml", "the sitemap names no page of its site"),
        ("/foreign.xml", "the sitemap names no page of its site"),
        ("/broken.xml", "is answered with status 503"),
    ] {
        let started = Instant::now();
        let error = list(&*open(&format!("{}{path}", site.url), &settings())).await.unwrap_err();
        assert!(error.ends_with(reason), "{path}: {error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{path}");
    }
}

fn bucket_settings(bucket: &Bucket) -> SourceSettings {
    SourceSettings {
        s3_endpoint: bucket.url.clone(),
        s3_access_key: Some("access".to_owned().into()),
        s3_secret_key: Some("secret".to_owned().into()),
        s3_allow_http: true,
        ..SourceSettings::default()
    }
}

fn objects() -> Vec<(&'static str, Object)> {
    vec![
        ("docs/", Object::new("binary/octet-stream", "")),
        ("docs/.hidden/x.md", Object::new("text/markdown", "x")),
        ("docs/a b/ü&.md", Object::new("text/markdown; charset=utf-8", "# Umlaut")),
        ("docs/a.md", Object::new("binary/octet-stream", "# A")),
        ("docs/photo.jpg", Object::new("image/jpeg", "x")),
        ("docs/z.html", Object::new("text/html", "<p>z</p>")),
        ("docs2/other.md", Object::new("text/markdown", "# Other")),
    ]
}

#[tokio::test]
async fn a_bucket_is_listed_page_by_page_and_read() {
    let bucket = Bucket::start(objects(), 2).await;
    let source = open("s3://help/docs", &bucket_settings(&bucket));
    let (items, others) = list(&*source).await.unwrap();
    let found: Vec<(&str, &str, u64)> = items.iter().map(|item| (item.id.as_str(), item.name.as_str(), item.bytes)).collect();
    assert_eq!(found, [("a b/ü&.md", "ü&.md", 8), ("a.md", "a.md", 3), ("z.html", "z.html", 8)]);
    assert_eq!((others, source.is_complete()), (vec!["ignored".to_owned()], true));
    assert_eq!(items[1].url, "s3://help/docs/a.md");
    assert_eq!(items[1].version.as_deref(), Some("etag \"3-132\""));
    let umlaut = source.read(&items[0], 100).await.unwrap();
    assert_eq!((umlaut.bytes.as_slice(), umlaut.media_type.as_deref()), (&b"# Umlaut"[..], Some("text/markdown")));
    assert_eq!(source.read(&items[1], 100).await.unwrap().media_type, None);
    assert_eq!(source.read(&items[1], 2).await.unwrap_err(), "has 3 bytes; at most 2 are read (`ingest.max_file_bytes`)");
    let requests = bucket.requests();
    assert!(requests.iter().all(|(_, signed)| *signed), "{requests:?}");
    assert_eq!(requests.iter().filter(|(what, _)| what == "list docs/").count(), 5, "three pages after two refusals: {requests:?}");
}

#[tokio::test]
async fn one_object_is_a_source() {
    let bucket = Bucket::start(objects(), 0).await;
    let source = open("s3://help/docs/a.md", &bucket_settings(&bucket));
    let (items, others) = list(&*source).await.unwrap();
    assert_eq!((items.len(), others.len(), items[0].id.as_str(), items[0].url.as_str()), (1, 0, "a.md", "s3://help/docs/a.md"));
    assert_eq!(source.read(&items[0], 100).await.unwrap().bytes, b"# A");
    assert!(!source.is_complete());
    let error = list(&*open("s3://help/docs/b.md", &bucket_settings(&bucket))).await.unwrap_err();
    assert!(error.starts_with("found no documents in s3://help/docs/b.md"), "{error}");
}

#[tokio::test]
async fn what_a_bucket_does_not_give_is_a_sentence() {
    let bucket = Bucket::start(objects(), 0).await;
    let settings = bucket_settings(&bucket);
    let error = list(&*open("s3://help/none", &settings)).await.unwrap_err();
    assert!(error.starts_with("found no documents in s3://help/none; formats: .md"), "{error}");
    let error = list(&*open("s3://other/docs", &settings)).await.unwrap_err();
    assert!(error.starts_with("cannot list s3://other/docs: "), "{error}");
    let unsigned = SourceSettings { s3_access_key: None, s3_secret_key: None, ..settings.clone() };
    assert_eq!(list(&*open("s3://help/docs2", &unsigned)).await.unwrap().0.len(), 1);
    assert_eq!(bucket.requests().pop(), Some(("list docs2/".to_owned(), false)));
    let plain = SourceSettings { s3_allow_http: false, ..settings };
    assert!(list(&*open("s3://help/docs", &plain)).await.is_err());
}
