//! What a file is by its first bytes, for endings that lie.

/// What a file begins like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pdf,
    Zip,
    /// The container of Office 97 to 2003, and of every encrypted Office file.
    Ole,
    /// Something that has a name but is no container of documents.
    Known(&'static str),
    Unknown,
}

/// A PDF may begin with rubbish: readers look for its mark in the first kilobyte.
const PDF_WITHIN: usize = 1024;

const BEGINNINGS: &[(&[u8], Kind)] = &[
    (b"PK\x03\x04", Kind::Zip),
    (b"PK\x05\x06", Kind::Zip),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind::Ole),
    (b"\x89PNG", Kind::Known("a PNG image")),
    (b"\xff\xd8\xff", Kind::Known("a JPEG image")),
    (b"GIF8", Kind::Known("a GIF image")),
    (b"\x1f\x8b", Kind::Known("a gzip file")),
    (b"{\\rtf", Kind::Known("an RTF document")),
    (b"<!DOCTYPE", Kind::Known("a web page")),
    (b"<!doctype", Kind::Known("a web page")),
    (b"<html", Kind::Known("a web page")),
    (b"<?xml", Kind::Known("an XML file")),
];

/// What the bytes begin like.
pub(super) fn kind(bytes: &[u8]) -> Kind {
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return *kind;
    }
    let head = &bytes[..bytes.len().min(PDF_WITHIN)];
    if head.windows(5).any(|window| window == b"%PDF-") { Kind::Pdf } else { Kind::Unknown }
}

/// The reason for a file that is not what its ending says: `is no PDF; it looks like a PNG image`.
pub(super) fn mismatch(bytes: &[u8], wanted: &str) -> String {
    let found = match kind(bytes) {
        Kind::Pdf => "a PDF",
        Kind::Zip => "a zip file",
        Kind::Ole if is_encrypted_office(bytes) => return "is encrypted".to_owned(),
        Kind::Ole => "a file of Office 97 to 2003",
        Kind::Known(name) => name,
        Kind::Unknown if bytes.is_empty() => return "is empty".to_owned(),
        Kind::Unknown => return format!("is no {wanted}"),
    };
    format!("is no {wanted}; it looks like {found}")
}

/// An Office file with a password is an OLE container with a stream of this name in UTF-16.
pub(super) fn is_encrypted_office(bytes: &[u8]) -> bool {
    let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    bytes.windows(name.len()).any(|window| window == name)
}
