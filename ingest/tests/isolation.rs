//! Hostile files cost themselves only: worker processes crash, hang and run out of memory, and the next file is read all the same.
//!
//! This test's own program is the worker: it is started again with the name of [`acts_as_worker`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use groundtone_ingest::extract::{Extractor, ExtractorSettings, RemoteExtractor, WorkerCommand, run_worker};
use groundtone_ingest::parse::{Limits, Shape};
use groundtone_provider::{DocumentExtractor, Endpoint, ExtractorKind};
use groundtone_testkit::{Reply, ScriptedServer};
use std::fmt::Write as _;
use std::io::{Cursor, IsTerminal, Write};
use std::time::{Duration, Instant};
use zip::write::SimpleFileOptions;

/// The worker's side of the tests below; as an ordinary test it does nothing.
#[test]
fn acts_as_worker() {
    if std::env::args().any(|argument| argument == "--exact") && !std::io::stdin().is_terminal() {
        run_worker().unwrap();
    }
}

/// A run that reads the file named on its command line; as an ordinary test it does nothing.
#[tokio::test]
async fn acts_as_run() {
    if let Some(file) = std::env::args().find(|argument| argument.ends_with(".xlsx")) {
        let bytes = std::fs::read(&file).unwrap();
        Extractor::new(settings()).extract(&file, bytes).await.unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_in_the_middle_of_a_file_ends_when_its_run_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.xlsx");
    std::fs::write(&file, long_sheet(4_000_000)).unwrap();
    let mut run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acts_as_run", file.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Every child of the run, by the thread that started it.
    let children = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", run.id())).unwrap();
        tasks
            .flat_map(|task| {
                std::fs::read_to_string(task.unwrap().path().join("children"))
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .next()
    };
    let started = Instant::now();
    let worker = loop {
        assert!(started.elapsed() < Duration::from_secs(20), "no worker was started");
        match children() {
            Some(worker) => break worker,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    // Until it works on the file.
    let busy = |limit: u64| {
        let status = std::fs::read_to_string(format!("/proc/{worker}/statm")).unwrap_or_default();
        status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).is_some_and(|pages| pages * 4096 > limit)
    };
    while !busy(30 << 20) {
        assert!(started.elapsed() < Duration::from_secs(20), "the worker does not work");
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let killed = Instant::now();
    let is_there = || std::fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while is_there() {
        assert!(killed.elapsed() < Duration::from_secs(5), "the worker reads on for nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn settings() -> ExtractorSettings {
    let args = ["acts_as_worker", "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec();
    ExtractorSettings {
        worker: Some(WorkerCommand { program: std::env::current_exe().unwrap(), args }),
        workers: 2,
        timeout: Duration::from_secs(30),
        memory_bytes: 512 << 20,
        limits: Limits::default(),
        remote: None,
    }
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const TYPES: &[u8] = br#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#;
const RELS: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#;

fn word(document: &str) -> Vec<u8> {
    zipped(&[("[Content_Types].xml", TYPES), ("_rels/.rels", RELS), ("word/document.xml", document.as_bytes())])
}

/// A spreadsheet with so many rows of one number.
fn long_sheet(rows: usize) -> Vec<u8> {
    let mut sheet = String::from("<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData>");
    for row in 1..=rows {
        write!(sheet, "<row r=\"{row}\"><c r=\"A{row}\"><v>{row}</v></c></row>").unwrap();
    }
    sheet.push_str("</sheetData></worksheet>");
    let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let package = "http://schemas.openxmlformats.org/package/2006/relationships";
    let workbook =
        format!(r#"<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="Long" sheetId="1" r:id="rId1"/></sheets></workbook>"#);
    let relations = format!(
        r#"<Relationships xmlns="{package}"><Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#
    );
    let root = format!(
        r#"<Relationships xmlns="{package}"><Relationship Id="r" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>"#
    );
    zipped(&[
        ("_rels/.rels", root.as_bytes()),
        ("xl/workbook.xml", workbook.as_bytes()),
        ("xl/_rels/workbook.xml.rels", relations.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

/// A PDF whose tree of pages is its own child.
const LOOP: &[u8] = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>endobj\ntrailer<</Root 1 0 R/Size 3>>\n%%EOF";

#[tokio::test]
async fn hostile_files_are_refused_and_the_next_file_is_read() {
    let extractor = Extractor::new(settings());
    let tower = format!("<w:document>{}</w:document>", "<w:tbl>".repeat(200_000));
    let blank = " ".repeat(80 << 20);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("bomb.docx", word(&blank), "unpacks to more than 64 MB; larger ones are not read"),
        ("tower.docx", word(&tower), "nests its tags more than 256 deep; deeper ones are not read"),
        ("loop.pdf", LOOP.to_vec(), ""),
        ("nested.pdf", [b"%PDF-1.4\n1 0 obj ".to_vec(), b"[".repeat(2_000_000)].concat(), ""),
        ("cut.pdf", fixture("manual.pdf")[..900].to_vec(), ""),
        ("cut.docx", fixture("returns.docx")[..9000].to_vec(), "is a damaged Word document: "),
        // A real crash: `calamine` panics on an .xls whose end is missing.
        ("cut.xls", fixture("prices.xls")[..4754].to_vec(), "made its extractor crash; please report it with the file"),
        ("picture.pdf", b"\x89PNG\r\n\x1a\n".to_vec(), "is no PDF; it looks like a PNG image"),
        ("encrypted.pdf", fixture("encrypted.pdf"), "is encrypted"),
    ];
    for (name, bytes, reason) in cases {
        let found = extractor.extract(name, bytes).await.unwrap_err();
        assert!(found.starts_with(reason) && !found.is_empty(), "{name} {found}");
        let next = extractor.extract("manual.pdf", fixture("manual.pdf")).await.unwrap();
        assert!(next.text.contains("clockwise"), "after {name}");
    }
}

#[tokio::test]
async fn a_file_that_needs_too_much_memory_says_so() {
    let limits = Limits { max_text_bytes: 1 << 30, ..Limits::default() };
    let extractor = Extractor::new(ExtractorSettings { memory_bytes: 160 << 20, limits, ..settings() });
    let found = extractor.extract("bomb.docx", word(&" ".repeat(400 << 20))).await.unwrap_err();
    assert_eq!(found, "needs more than 160 MB to extract");
    assert!(extractor.extract("manual.pdf", fixture("manual.pdf")).await.is_ok());
}

#[tokio::test]
async fn a_file_that_takes_too_long_is_given_up_and_its_worker_killed() {
    let sheet = long_sheet(1_000_000);
    let hasty = Extractor::new(ExtractorSettings { timeout: Duration::from_millis(300), ..settings() });
    let started = Instant::now();
    assert_eq!(hasty.extract("long.xlsx", sheet.clone()).await.unwrap_err(), "took longer than 0.3 s to parse");
    assert!(started.elapsed() < Duration::from_secs(5));
    let patient = Extractor::new(settings());
    let parsed = patient.extract("long.xlsx", sheet).await.unwrap();
    assert_eq!((parsed.shape, parsed.text.lines().count()), (Shape::Rows, 1_000_000));
}

/// A worker of a shell's making.
fn shell(script: &str) -> Extractor {
    let worker = Some(WorkerCommand { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] });
    Extractor::new(ExtractorSettings { worker, timeout: Duration::from_secs(1), ..settings() })
}

#[tokio::test]
async fn a_worker_that_dies_lies_or_says_nothing_costs_its_file() {
    let cases = [
        ("kill -9 $$", "made its extractor crash; please report it with the file"),
        ("head -c 100 >/dev/null; kill -SEGV $$", "made its extractor crash; please report it with the file"),
        ("printf '\\005\\000\\000\\000hello' >&0; sleep 60", "made its extractor answer nonsense; please report it with the file"),
        ("printf '\\377\\377\\377\\377' >&0; sleep 60", "made its extractor crash; please report it with the file"),
        ("head -c 100 >/dev/null; echo 'memory allocation of 7 bytes failed' >&2; kill -ABRT $$", "needs more than 512 MB to extract"),
        ("exec sleep 60", "took longer than 1 s to parse"),
    ];
    for (script, reason) in cases {
        let started = Instant::now();
        assert_eq!(shell(script).extract("manual.pdf", fixture("manual.pdf")).await.unwrap_err(), reason, "{script}");
        assert!(started.elapsed() < Duration::from_secs(5), "{script}");
    }
}

#[tokio::test]
async fn an_extractor_server_is_asked_for_its_endings_only() {
    let server = ScriptedServer::start([Reply::Raw(200, "text/html", "<h1>Offer</h1><p>Ten percent.</p>".to_owned())]).await;
    let limit = Duration::from_secs(5);
    let endpoint = Endpoint::new(server.root(), None, limit, limit, limit).unwrap();
    let client = DocumentExtractor::new(endpoint, ExtractorKind::Tika, 1 << 20);
    let extractor =
        Extractor::new(ExtractorSettings { remote: Some(RemoteExtractor { client, endings: vec!["doc".to_owned()] }), ..settings() });
    assert!(extractor.reads("a/b.DOC".as_ref()) && extractor.reads("b.pdf".as_ref()) && !extractor.reads("b.exe".as_ref()));
    assert!(extractor.known_endings().ends_with(", .doc"));
    let parsed = extractor.extract("a/b.DOC", b"old words".to_vec()).await.unwrap();
    assert_eq!((parsed.shape, parsed.text.trim()), (Shape::Markdown, "# Offer\n\nTen percent."));
    assert!(extractor.extract("manual.pdf", fixture("manual.pdf")).await.unwrap().text.contains("clockwise"));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(extractor.extract("b.exe", Vec::new()).await.unwrap_err(), "has an ending that is not read");
}

#[tokio::test]
async fn a_worker_that_cannot_start_is_a_reason() {
    let worker = Some(WorkerCommand { program: "/nowhere/groundtone".into(), args: Vec::new() });
    let extractor = Extractor::new(ExtractorSettings { worker, ..settings() });
    let found = extractor.extract("manual.pdf", fixture("manual.pdf")).await.unwrap_err();
    assert!(found.starts_with("was not extracted: no worker could be started: "), "{found}");
}
