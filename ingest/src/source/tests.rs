use super::*;
use futures::StreamExt;
use proptest::prelude::*;

/// Every offer in one line: `id`, `! place reason`, or `-`.
async fn listing(source: &dyn Source) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut offers = source.offers();
    while let Some(offer) = offers.next().await {
        lines.push(match offer.map_err(|error| error.to_string())? {
            Offer::Item(item) => item.id.to_string(),
            Offer::Unreadable { place, reason } => format!("! {place} {reason}"),
            Offer::Parts { id, count } => format!("{id} in {count} parts"),
            Offer::Ignored => "-".to_owned(),
        });
    }
    Ok(lines)
}

async fn items(source: &dyn Source) -> Vec<SourceItem> {
    let offers: Vec<_> = source.offers().collect().await;
    offers.into_iter().filter_map(|offer| if let Ok(Offer::Item(item)) = offer { Some(item) } else { None }).collect()
}

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("# {file}\n\nText.")).unwrap();
    }
    folder
}

fn open_in(folder: &tempfile::TempDir, below: &str) -> Result<Box<dyn Source>, String> {
    let place = folder.path().display().to_string();
    open(&format!("{place}{below}"), &SourceSettings::default()).map_err(|error| error.to_string().replace(&place, "FOLDER"))
}

async fn list_in(folder: &tempfile::TempDir, below: &str) -> Result<Vec<String>, String> {
    let place = folder.path().display().to_string();
    let listed = listing(&*open_in(folder, below)?).await.map_err(|error| error.replace(&place, "FOLDER"))?;
    Ok(listed.into_iter().map(|line| line.replace(&place, "FOLDER")).collect())
}

#[tokio::test]
async fn a_folder_is_listed_in_the_order_of_its_ids() {
    let folder = folder(&["b.md", "a/z.md", "a-b.md", "a.md", "a/b/c.txt", "a b/ü.md", ".git/x.md", "a/.hidden.md", "photo.jpg"]);
    let ids = list_in(&folder, "").await.unwrap();
    assert_eq!(ids, ["a b/ü.md", "a-b.md", "a.md", "a/b/c.txt", "a/z.md", "b.md", "-"]);
    let source = open_in(&folder, "/").unwrap();
    let all = items(&*source).await;
    let item = &all[0];
    let root = folder.path().canonicalize().unwrap();
    assert_eq!((item.name.as_str(), item.url.as_str()), ("ü.md", format!("file://{}/a%20b/ü.md", root.display()).as_str()));
    assert_eq!(source.read(item, 100).await.unwrap().bytes, "# a b/ü.md\n\nText.".as_bytes());
    assert_eq!(source.read(item, 5).await.unwrap_err(), "has 18 bytes; at most 5 are read (`ingest.max_file_bytes`)");
    std::fs::remove_file(folder.path().join("a b/ü.md")).unwrap();
    assert_eq!(source.read(item, 100).await.unwrap_err(), "cannot be read: no such file or directory");
    assert!(source.is_complete());
    assert_eq!(list_in(&folder, "/").await.unwrap().len(), 6);
    let address = format!("file://{}", folder.path().display());
    assert_eq!(listing(&*open(&address, &SourceSettings::default()).unwrap()).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_file_and_a_pattern_are_sources_too() {
    let folder = folder(&["docs/a.md", "docs/x/b.md", "docs/x/c.txt", "docs/x/d.jpg", "docs/[1].md", "other/e.md"]);
    assert_eq!(list_in(&folder, "/docs/a.md").await.unwrap(), ["a.md", "a.md in 0 parts"]);
    assert!(!open_in(&folder, "/docs/a.md").unwrap().is_complete());
    assert_eq!(list_in(&folder, "/docs/**/*.md").await.unwrap(), ["[1].md", "a.md", "x/b.md"]);
    assert_eq!(list_in(&folder, "/docs/*.md").await.unwrap(), ["[1].md", "a.md"]);
    assert_eq!(
        list_in(&folder, "/{docs,other}/**").await.unwrap(),
        ["docs/[1].md", "docs/a.md", "docs/x/b.md", "docs/x/c.txt", "-", "other/e.md"]
    );
    assert_eq!(list_in(&folder, "/docs/[1].md").await.unwrap(), ["[1].md", "[1].md in 0 parts"], "a path that is there is no pattern");
    assert!(open_in(&folder, "/docs/*.md").unwrap().is_complete());
}

#[tokio::test]
async fn what_is_no_source_is_a_sentence() {
    let folder = folder(&["a.jpg", "sub/a.md"]);
    let cases = [
        ("/none", "cannot read FOLDER/none: no such file or directory"),
        ("/*.md", "cannot read FOLDER/*.md: no file matches the pattern"),
        ("/none/*.md", "cannot read FOLDER/none/*.md: FOLDER/none: no such file or directory"),
        ("/a.jpg/*", "cannot read FOLDER/a.jpg/*: FOLDER/a.jpg is not a folder"),
        ("/[a", "cannot read FOLDER/[a: the pattern is not valid: unclosed character class; missing ']'"),
    ];
    for (below, sentence) in cases {
        assert_eq!(list_in(&folder, below).await.unwrap_err(), sentence);
    }
    for nothing in ["/*.jpg", "/a.jpg"] {
        let error = list_in(&folder, nothing).await.unwrap_err();
        assert!(error.starts_with(&format!("found no documents in FOLDER{nothing}; formats: .md")), "{error}");
    }
    for remote in ["https://host.example/", "https://host.example/sitemap.xml", "s3://bucket/docs", "-"] {
        assert!(open(remote, &SourceSettings::default()).is_ok(), "{remote} is opened without asking anybody");
    }
    for (location, reason) in [
        ("ftp://host/x", "a source is a path, a pattern, http(s)://, sitemap:, s3://, file:// or -"),
        ("https://", "it is not an address"),
        ("sitemap:docs", "it is not an address"),
        ("sitemap:ftp://host/", "must begin with http:// or https://"),
        ("s3://", "it names no bucket"),
        ("s3://bucket/a//b", "empty path segment"),
        ("file://host/x", "its address must look like file:///folder"),
    ] {
        let error = open(location, &SourceSettings::default()).map(|_| ()).unwrap_err().to_string();
        let place = location.trim_start_matches("sitemap:");
        assert!(error.contains(place) && error.contains(reason), "{location}: {error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn names_that_are_no_text_and_links_cost_only_themselves() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(&["good.md"]);
    std::fs::write(folder.path().join(OsStr::from_bytes(b"b\xffd.md")), "x").unwrap();
    std::fs::write(folder.path().join("new\nline.md"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("good.md", folder.path().join("link.md")).unwrap();
    let listed = list_in(&folder, "").await.unwrap();
    assert_eq!(listed, ["b%FFd.md", "good.md", "new%0Aline.md"]);
    for name in ["a%FFb.md", "a%25FFb.md", "a%20b.md", "100%.md"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    std::fs::write(folder.path().join(OsStr::from_bytes(b"a\xffb.md")), "x").unwrap();
    let listed = list_in(&folder, "").await.unwrap();
    assert_eq!(listed[..5], ["100%.md", "a%20b.md", "a%2525FFb.md", "a%25FFb.md", "a%FFb.md"], "no two names become one id");
    let source = open_in(&folder, "").unwrap();
    for item in items(&*source).await {
        assert!(source.read(&item, 100).await.is_ok(), "{}", item.id);
        assert!(!item.url.contains('\n'), "{}", item.url);
    }
}

#[tokio::test]
async fn a_listing_that_nobody_takes_ends() {
    let names: Vec<String> = (0..1000).map(|n| format!("{n:04}.md")).collect();
    let folder = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let source = open_in(&folder, "").unwrap();
    let mut offers = source.offers();
    assert!(offers.next().await.is_some());
    drop(offers);
    assert_eq!(listing(&*source).await.unwrap(), names);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Ids come sorted, are the paths below the root, and lead back to the file.
    #[test]
    fn ids_are_sorted_paths(names in proptest::collection::btree_set("[a-c.\\- ]{0,2}[a-c](/[a-c\\-]{1,2}){0,2}", 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = Vec::new();
        for name in &names {
            let (name, path) = (format!("{name}.md"), folder.path().join(format!("{name}.md")));
            if name.split('/').any(|part| part.starts_with('.')) {
                continue;
            }
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &name).unwrap();
            wanted.push(name);
        }
        prop_assume!(!wanted.is_empty());
        wanted.sort();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let source = open_in(&folder, "").unwrap();
            let found = items(&*source).await;
            prop_assert_eq!(found.iter().map(|item| item.id.as_str().to_owned()).collect::<Vec<_>>(), wanted);
            for item in found {
                prop_assert_eq!(source.read(&item, 100).await.unwrap().bytes, item.id.as_str().as_bytes());
            }
            Ok(())
        })?;
    }
}
