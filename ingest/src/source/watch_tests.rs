use super::*;
use std::fs;

/// Long enough for a loaded machine; a tick that does come takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

fn settings() -> SourceSettings {
    SourceSettings { watch_debounce: Duration::from_millis(50), watch_rescan: Duration::from_secs(3_600), ..SourceSettings::default() }
}

async fn ticks(changes: &mut Changes, what: &str) {
    tokio::time::timeout(DEADLINE, changes.next()).await.unwrap_or_else(|_| panic!("no tick: {what}"));
}

/// Takes what is left of earlier changes.
async fn calm(changes: &mut Changes) {
    while tokio::time::timeout(Duration::from_millis(300), changes.next()).await.is_ok() {}
}

#[tokio::test]
async fn changes_in_a_folder_are_noticed_and_reading_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.md");
    fs::write(&file, "1").unwrap();
    let mut changes = watch(folder.path().to_str().unwrap(), &settings()).unwrap();
    fs::write(&file, "2").unwrap();
    ticks(&mut changes, "a write").await;
    fs::create_dir_all(folder.path().join("sub/deep")).unwrap();
    ticks(&mut changes, "a new folder").await;
    calm(&mut changes).await;
    fs::write(folder.path().join("sub/deep/b.md"), "x").unwrap();
    ticks(&mut changes, "a file in a new folder").await;
    calm(&mut changes).await;
    fs::write(folder.path().join(".a.md.swp"), "x").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    assert!(tokio::time::timeout(Duration::from_millis(500), changes.next()).await.is_err(), "reading and hidden files are no change");
    fs::remove_file(&file).unwrap();
    ticks(&mut changes, "a removal").await;
}

#[tokio::test]
async fn an_editor_that_replaces_the_file_is_noticed_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.md");
    fs::write(&file, "1").unwrap();
    let mut changes = watch(file.to_str().unwrap(), &settings()).unwrap();
    for round in 0..3 {
        fs::write(folder.path().join("a.md~"), "new").unwrap();
        fs::rename(folder.path().join("a.md~"), &file).unwrap();
        ticks(&mut changes, &format!("replacement {round}")).await;
        calm(&mut changes).await;
    }
}

#[tokio::test]
async fn a_folder_may_disappear_and_come_back() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("docs");
    fs::create_dir(&folder).unwrap();
    let mut changes = watch(folder.to_str().unwrap(), &settings()).unwrap();
    for round in 0..2 {
        fs::rename(&folder, parent.path().join(format!("old{round}"))).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1500), changes.next()).await.is_err(), "nothing to look at");
        fs::create_dir(&folder).unwrap();
        ticks(&mut changes, "the folder is back").await;
        calm(&mut changes).await;
        fs::write(folder.join("a.md"), "x").unwrap();
        ticks(&mut changes, "a file in the new folder").await;
        calm(&mut changes).await;
        fs::write(parent.path().join(format!("old{round}/b.md")), "x").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(300), changes.next()).await.is_err(), "the old folder is not followed");
    }
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    ticks(&mut changes, "removed and made again at once").await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_looked_through_at_an_interval() {
    let soon = SourceSettings { watch_rescan: Duration::from_millis(50), ..settings() };
    for location in ["https://e.test/sitemap.xml", "s3://bucket/prefix"] {
        let mut changes = watch(location, &soon).unwrap();
        ticks(&mut changes, location).await;
        ticks(&mut changes, location).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut changes = watch(&format!("{}/*.md", folder.path().display()), &soon).unwrap();
    ticks(&mut changes, "a rescan").await;
    assert_eq!(watch("-", &soon).map(|_| ()).unwrap_err().to_string(), "cannot read -: standard input cannot be followed");
    assert!(watch("/none/at/all", &soon).is_err());
}
