//! A disk that fills up in the middle of an ingest: a small file system of its own, in a mount namespace.

use super::support::groundtone;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const DOCUMENTS: usize = 1500;

/// Whether this machine lets a test mount something of its own.
fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The commands of `script`, with a data directory on a file system of 34 MB, 2 of them free to use; `$G` is the binary, `larger` enlarges it.
fn on_a_small_disk(folder: &Path, script: &str) -> Output {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let ours = groundtone(folder, &[]);
    let mut command = Command::new("unshare");
    let prelude = r#"set -u; mount -t tmpfs -o size=34m tmpfs "$GROUNDTONE_DATA_DIRECTORY" || exit 9; larger() { mount -o remount,size=400m "$GROUNDTONE_DATA_DIRECTORY"; };"#;
    command.args(["-Urm", "sh", "-c", &format!("{prelude} {script}")]).current_dir(folder).env("G", ours.get_program());
    for (name, value) in ours.get_envs() {
        command.env(name, value.unwrap());
    }
    command.output().unwrap()
}

#[test]
fn a_full_disk_stops_a_run_cleanly_and_the_next_run_goes_on() {
    if !can_mount() {
        println!("skipped: this machine mounts nothing for a test");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("many");
    std::fs::create_dir(&documents).unwrap();
    for number in 0..DOCUMENTS {
        let text = format!("# Part {number}\n\nPart {number} fits model {} and costs {} euro.\n", number % 97, number % 51);
        std::fs::write(documents.join(format!("part-{number}.md")), text).unwrap();
    }
    let script = r#"
        "$G" ingest many --json >first.json 2>first.err; echo $? >first.code
        "$G" ingest many --json >second.json 2>second.err; echo $? >second.code
        larger
        "$G" ingest many --json >third.json 2>third.err || exit 1
        "$G" fsck --json >fsck.json 2>fsck.err || exit 2
        "$G" ingest many --json >fourth.json"#;
    let output = on_a_small_disk(folder.path(), script);
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let errors = || format!("{}{}{}", text("first.err"), text("third.err"), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", errors());
    for name in ["first", "second"] {
        assert_eq!(text(&format!("{name}.code")).trim(), "1", "a full disk fails the run and kills nothing: {}", errors());
        let said = text(&format!("{name}.err"));
        assert!(said.contains("full") || said.contains("No space left"), "{said}");
        assert!(!said.contains("panicked at"), "{said}");
    }
    let report = |name: &str| serde_json::from_str::<Value>(text(name).lines().last().unwrap()).unwrap();
    let (third, fourth, drift) = (report("third.json"), report("fourth.json"), report("fsck.json"));
    assert_eq!(third["new"].as_u64().unwrap() + third["unchanged"].as_u64().unwrap(), DOCUMENTS as u64);
    assert_eq!((&drift["orphans"], &drift["points"]), (&0.into(), &DOCUMENTS.into()));
    assert_eq!((&fourth["unchanged"], &fourth["embed_calls"]), (&DOCUMENTS.into(), &0.into()));
}
