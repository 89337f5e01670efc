//! Documents through the binary: every format becomes text in a worker process, and what cannot be read says why.

use super::support::{run, run_failing, run_json};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ingest/tests/fixtures").join(name)
}

#[test]
fn every_format_becomes_text() {
    let folder = tempfile::tempdir().unwrap();
    for (name, title, pages, words) in [
        ("manual.pdf", None, 2, "Turn the crank clockwise."),
        ("returns.docx", Some("Returns"), 0, "## Window\n\nYou can send your grinder back within 45 days of delivery."),
        ("deck.pptx", Some("Shop deck"), 2, "## Slide 2: Prices"),
        ("prices.xlsx", None, 0, "sheet: Prices; sku: G1; product: Alder hand grinder; price: 89.5; since: 2021-03-01"),
        ("prices.xls", None, 0, "sheet: Prices; sku: G2; product: Birch electric grinder; price: 249; since: 2023-11-20"),
        ("prices.ods", None, 0, "sheet: Prices; sku: G2; product: Birch electric grinder; price: 249"),
        ("care.epub", Some("Grinder care"), 0, "Brush the burrs every month."),
        ("make_fixtures.py", None, 0, "def powerpoint():"),
    ] {
        let parsed = run_json(folder.path(), &["extract", fixture(name).to_str().unwrap(), "--json"]);
        assert_eq!((parsed["title"].as_str(), parsed["pages"].as_array().unwrap().len()), (title, pages), "{name}");
        assert!(parsed["text"].as_str().unwrap().contains(words), "{name}: {parsed}");
    }
    let plain = run(folder.path(), &["extract", fixture("manual.pdf").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&plain.stdout).starts_with("Grinder manual\n"));
}

#[test]
fn what_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    for (name, reason) in [("encrypted.pdf", "is encrypted"), ("scan.pdf", "holds no text: its pages are images")] {
        let path = fixture(name);
        let (text, code) = run_failing(folder.path(), &["extract", path.to_str().unwrap()]);
        assert_eq!((text, code), (format!("error: {} {reason}\n", path.display()), 1));
    }
    std::fs::write(folder.path().join("a.xyz"), "x").unwrap();
    let (text, _) = run_failing(folder.path(), &["extract", "a.xyz"]);
    assert!(text.starts_with("error: a.xyz has an ending that is not read\nhint: formats: .md, "), "{text}");
    let help = run(folder.path(), &["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("extract ") && !help.contains("extract-worker"), "{help}");
}
