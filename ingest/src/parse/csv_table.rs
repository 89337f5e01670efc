use super::{Parsed, Shape};

/// One line for each row, every value with its column's name, so that a row can be understood alone: `product: Kettle; price_eur: 79.00`.
pub(super) fn parse(source: &str) -> Result<Parsed, String> {
    let delimiter = delimiter(source);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).trim(csv::Trim::All).from_reader(source.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    if header.iter().all(str::is_empty) {
        return Err("has no header line".to_owned());
    }
    let mut text = String::with_capacity(source.len() * 2);
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|error| format!("row {}: {error}", row + 2))?;
        push_row(&mut text, record.iter().enumerate().map(|(column, value)| (header.get(column), value)));
    }
    Ok(Parsed { title: None, text, shape: Shape::Rows, pages: Vec::new() })
}

/// Adds one line of values with their names; empty values are left out, and a row without values is no line.
pub(super) fn push_row<'a>(text: &mut String, cells: impl Iterator<Item = (Option<&'a str>, &'a str)>) {
    let start = text.len();
    for (name, value) in cells.filter(|(_, value)| !value.is_empty()) {
        if text.len() > start {
            text.push_str("; ");
        }
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            text.push_str(name);
            text.push_str(": ");
        }
        text.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    if text.len() > start {
        text.push('\n');
    }
}

/// The separator that the header line uses most.
pub(crate) fn delimiter(source: &str) -> u8 {
    let header = source.lines().next().unwrap_or_default();
    let count = |byte: u8| header.bytes().filter(|&b| b == byte).count();
    [b',', b';', b'\t', b'|'].into_iter().rev().max_by_key(|&byte| count(byte)).unwrap_or(b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_can_be_understood_alone() {
        let parsed = parse("sku,product,price\nK1,\"Kettle, small\",79\nK2,,80\n,,\n").unwrap();
        assert_eq!(parsed.text, "sku: K1; product: Kettle, small; price: 79\nsku: K2; price: 80\n");
        assert_eq!(parse("a;b\n1;2\n").unwrap().text, "a: 1; b: 2\n");
        assert!(parse("").is_err());
    }
}
