//! Bytes to text: byte order marks, what the source says, UTF-8, and a guess for everything older.

use chardetng::EncodingDetector;
use encoding_rs::Encoding;

/// How much of a file is looked at to decide whether it is text.
const SAMPLE: usize = 64 * 1024;

/// Decodes a file. `charset` is the name of a character set that its source says (<https://encoding.spec.whatwg.org/#names-and-labels>); one that does not fit the bytes,
/// or that nobody knows, is passed over. `Err` is the reason why it is not text.
pub(crate) fn decode(bytes: &[u8], charset: Option<&str>) -> Result<String, String> {
    if let Some((encoding, bom)) = Encoding::for_bom(bytes) {
        let (text, malformed) = encoding.decode_without_bom_handling(&bytes[bom..]);
        return if malformed { Err(format!("starts as {} but is not", encoding.name())) } else { Ok(text.into_owned()) };
    }
    let named = charset.and_then(|name| Encoding::for_label(name.as_bytes()));
    if let Some(text) = named.and_then(|encoding| encoding.decode_without_bom_handling_and_without_replacement(bytes))
        && !text.contains('\0')
    {
        return Ok(text.into_owned());
    }
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    if sample.contains(&0) {
        return Err("is a binary file: it holds NUL bytes".to_owned());
    }
    let controls = sample.iter().filter(|&&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)).count();
    if controls * 100 > sample.len() * 2 {
        return Err("is a binary file: more than 2 % of it are control characters".to_owned());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => {
            let mut detector = EncodingDetector::new();
            detector.feed(bytes, true);
            let encoding = detector.guess(None, false);
            let (text, _, malformed) = encoding.decode(bytes);
            if malformed { Err(format!("is neither UTF-8 nor {}", encoding.name())) } else { Ok(text.into_owned()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn old_encodings_are_read_and_binaries_are_not() {
        assert_eq!(decode("Größe".as_bytes(), None).unwrap(), "Größe");
        assert_eq!(decode(b"\xef\xbb\xbfGr\xc3\xb6\xc3\x9fe", None).unwrap(), "Größe");
        assert_eq!(decode(b"\xff\xfeG\0r\0", None).unwrap(), "Gr");
        assert_eq!(
            decode(b"Die Gr\xf6\xdfe der M\xfchle ist f\xfcr alle K\xfcchen gut.", None).unwrap(),
            "Die Größe der Mühle ist für alle Küchen gut."
        );
        assert!(decode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", None).unwrap_err().contains("NUL"));
        assert!(decode(&[1u8; 100], None).unwrap_err().contains("control characters"));
    }

    #[test]
    fn what_the_source_says_counts_until_it_does_not_fit() {
        // A guess takes so short a text for something else.
        let short = b"\xe9";
        assert_eq!(decode(short, Some("iso-8859-5")).unwrap(), "щ");
        assert_ne!(decode(short, None).unwrap(), "щ");
        assert_eq!(decode("Größe".as_bytes(), Some("shift_jis-or-so")).unwrap(), "Größe", "nobody knows this name");
        assert_eq!(decode(b"Die Gr\xf6\xdfe der M\xfchle ist gut.", Some("utf-8")).unwrap(), "Die Größe der Mühle ist gut.");
        assert_eq!(decode(b"\xef\xbb\xbfGr\xc3\xb6\xc3\x9fe", Some("koi8-r")).unwrap(), "Größe", "a byte order mark has the last word");
        assert!(decode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Some("iso-8859-1")).unwrap_err().contains("NUL"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_text_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Err(reason) = decode(&bytes, None) {
                prop_assert!(!reason.is_empty());
            }
        }
    }
}
