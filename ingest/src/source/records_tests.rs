use super::*;

async fn offers(text: &[u8], max_bytes: usize) -> Vec<Result<Offer, Error>> {
    RecordSource::stream("records.jsonl", Box::new(std::io::Cursor::new(text.to_vec())), max_bytes).offers().collect().await
}

/// The only line's reason.
async fn reason(line: &str) -> String {
    match offers(line.as_bytes(), 100).await.pop() {
        Some(Ok(Offer::Unreadable { place, reason })) => format!("{place} {reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_is_a_document() {
    let line = r##"{"id":"faq/returns","text":"# Returns\n\n30 days.","title":"Returns","url":"https://e.test/r","metadata":{"lang":"en","rank":3,"old":null}}"##;
    let source = RecordSource::stream("standard input", Box::new(std::io::Cursor::new(format!("\u{feff}{line}\r\n\n"))), 1000);
    let all: Vec<_> = source.offers().collect().await;
    let [Ok(Offer::Item(item))] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((item.id.as_str(), item.name.as_str(), item.place.as_str()), ("faq/returns", "returns.md", "standard input:1"));
    assert_eq!((item.url.as_str(), item.bytes), ("https://e.test/r", 19));
    let content = source.read(item, 100).await.unwrap();
    assert_eq!((content.bytes.as_slice(), content.title.as_deref()), (&b"# Returns\n\n30 days."[..], Some("Returns")));
    assert_eq!(content.metadata.to_json(), r#"{"lang":"en","rank":3}"#);
    let other = SourceContent { metadata: Metadata::default(), ..content.clone() };
    assert!(content.hash() != other.hash() && content.hash() == content.clone().hash(), "other metadata is another version");
    assert_eq!(source.read(item, 5).await.unwrap_err(), "has 19 bytes; at most 5 are read (`ingest.max_file_bytes`)");
    let again: Vec<_> = source.offers().collect().await;
    assert!(matches!(again.as_slice(), [Err(error)] if error.to_string() == "cannot read standard input: it has been read already"));
}

#[tokio::test]
async fn a_bad_line_is_named_with_its_reason() {
    let cases = [
        (r#"{"id":"a"}"#, "records.jsonl line 1: missing field `text`"),
        (r#"{"text":"a"}"#, "records.jsonl line 1: missing field `id`"),
        (
            r#"{"id":"a","text":"b","body":"c"}"#,
            "records.jsonl line 1: unknown field `body`, expected one of `id`, `text`, `title`, `url`, `metadata`",
        ),
        (r#"{"id":1,"text":"b"}"#, "records.jsonl line 1: invalid type: integer `1`, expected a string"),
        (r#"{"id":"a","text":"#, "records.jsonl line 1: is not JSON: EOF while parsing a value at column 17"),
        ("nonsense", "records.jsonl line 1: is not JSON: expected ident at column 2"),
        (
            r#"{"id":"","text":"b"}"#,
            "records.jsonl line 1: document id `` is not valid: use 1 to 1024 characters without control characters",
        ),
        (
            r#"{"id":"a","text":"b","metadata":{"tags":[1]}}"#,
            "records.jsonl line 1: `metadata.tags` is not a text, a number, a truth value or a list of texts",
        ),
    ];
    for (line, sentence) in cases {
        assert_eq!(reason(line).await, sentence);
    }
    assert_eq!(reason(&"x".repeat(101)).await, "records.jsonl line 1: has more than 100 bytes (`sources.record_max_bytes`)");
    let none = offers(b"\n \n", 100).await;
    assert!(matches!(none.as_slice(), [Err(error)] if error.to_string() == "cannot read records.jsonl: it holds no record"));
}

#[tokio::test]
async fn ten_thousand_lines_with_bad_ones_in_between_are_all_accounted_for() {
    let mut text = Vec::new();
    for n in 1..=10_000 {
        match n % 100 {
            0 => text.extend_from_slice(b"{broken"),
            1 => text.extend_from_slice(b"\xff\xfe"),
            2 => text.extend_from_slice("y".repeat(500).as_bytes()),
            _ => text.extend_from_slice(format!("{{\"id\":\"r{n}\",\"text\":\"Record {n}\"}}").as_bytes()),
        }
        text.push(b'\n');
    }
    let (mut good, mut bad) = (0, 0);
    for offer in offers(&text, 200).await {
        match offer.unwrap() {
            Offer::Item(item) => {
                good += 1;
                assert_eq!(item.place, format!("records.jsonl:{}", &item.id.as_str()[1..]));
            }
            Offer::Unreadable { .. } => bad += 1,
            Offer::Parts { .. } | Offer::Ignored => panic!("a line is a document"),
        }
    }
    assert_eq!((good, bad), (9_700, 300));
}

/// A pipe that has written one line and stays open: the line is offered at once, not when the pipe closes.
#[tokio::test]
async fn a_record_is_offered_as_soon_as_its_line_is_there() {
    use tokio::io::AsyncWriteExt;
    let (mut writer, reader) = tokio::io::duplex(64);
    let source = RecordSource::stream("standard input", Box::new(BufReader::new(reader)), 1000);
    let mut offers = source.offers();
    writer.write_all(b"{\"id\":\"a\",\"text\":\"b\"}\n").await.unwrap();
    assert!(matches!(offers.next().await, Some(Ok(Offer::Item(_)))));
    drop(writer);
    assert!(offers.next().await.is_none());
}
