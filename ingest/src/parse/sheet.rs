//! Excel and OpenDocument spreadsheets, by `calamine`: one line for each row, every value with its sheet's and its column's name.

use super::magic::{self, Kind};
use super::{Limits, Parsed, Shape, archive, csv_table, one_line};
use calamine::{Data, DataRef, Error, ExcelDateTime, Ods, Reader, Sheets, Xls, Xlsb, Xlsx, XlsxError};
use std::collections::BTreeMap;
use std::io::Cursor;

/// The file's bytes say which of the formats it is, whatever its ending says.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, String> {
    let mut workbook = open(bytes, limits)?;
    let names = workbook.sheet_names();
    limits.check_pages(names.len(), "sheets")?;
    let mut text = String::new();
    for name in names {
        let mut rows = SheetRows { sheet: one_line(&name), header: None, text: &mut text, limits };
        match &mut workbook {
            Sheets::Xlsx(workbook) => stream(workbook, &name, &mut rows)?,
            workbook => {
                let range = workbook.worksheet_range(&name).map_err(|error| unreadable(&error))?;
                for row in range.rows() {
                    let cells =
                        row.iter().enumerate().map(|(column, value)| (column as u32, shown(value), matches!(value, Data::String(_))));
                    rows.push(cells.collect())?;
                }
            }
        }
    }
    Ok(Parsed { title: None, text, shape: Shape::Rows, pages: Vec::new() })
}

fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Sheets<Cursor<&'a [u8]>>, String> {
    let source = Cursor::new(bytes);
    let workbook = if magic::kind(bytes) == Kind::Ole {
        if magic::is_encrypted_office(bytes) {
            return Err("is encrypted".to_owned());
        }
        Xls::new(source).map(Sheets::Xls).map_err(Error::Xls)
    } else {
        let entries = archive::check(bytes, "spreadsheet", limits)?;
        let holds = |name: &str| entries.iter().any(|entry| entry == name);
        if holds("content.xml") {
            Ods::new(source).map(Sheets::Ods).map_err(Error::Ods)
        } else if holds("xl/workbook.bin") {
            Xlsb::new(source).map(Sheets::Xlsb).map_err(Error::Xlsb)
        } else {
            Xlsx::new(source).map(Sheets::Xlsx).map_err(Error::Xlsx)
        }
    };
    workbook.map_err(|error| unreadable(&error))
}

/// Cell by cell: a sheet whose last cell is far away costs only the cells that it has.
fn stream(workbook: &mut Xlsx<Cursor<&[u8]>>, name: &str, rows: &mut SheetRows<'_>) -> Result<(), String> {
    let refused = |error: XlsxError| unreadable(&Error::Xlsx(error));
    let mut cells = match workbook.worksheet_cells_reader(name) {
        // Sheets of charts and macros have no cells.
        Err(XlsxError::NotAWorksheet(_)) => return Ok(()),
        cells => cells.map_err(refused)?,
    };
    let (mut row, mut open) = (0, Vec::new());
    while let Some(cell) = cells.next_cell().map_err(refused)? {
        let (at, column) = cell.get_position();
        if at != row {
            rows.push(std::mem::take(&mut open))?;
            row = at;
        }
        let value = cell.get_value();
        let is_text = matches!(value, DataRef::String(_) | DataRef::SharedString(_));
        open.push((column, shown(&Data::from(value.clone())), is_text));
    }
    rows.push(open)
}

fn unreadable(error: &Error) -> String {
    match error {
        Error::Xls(calamine::XlsError::Password) | Error::Xlsx(XlsxError::Password) | Error::Ods(calamine::OdsError::Password) => {
            "is encrypted".to_owned()
        }
        error => format!("is a damaged spreadsheet: {}", one_line(&error.to_string())),
    }
}

/// A value as a person sees it.
fn shown(value: &Data) -> String {
    match value {
        Data::DateTime(moment) => shown_moment(*moment),
        // 0.1 + 0.2 is stored as 0.30000000000000004; a spreadsheet shows 15 digits.
        Data::Float(number) if number.is_finite() => {
            let rounded: f64 = format!("{number:.14e}").parse().unwrap_or(*number);
            rounded.to_string()
        }
        Data::Error(_) => String::new(),
        value => one_line(&value.to_string()),
    }
}

fn shown_moment(moment: ExcelDateTime) -> String {
    if moment.is_duration() {
        let seconds = (moment.as_f64() * 86_400.0).round() as i64;
        return format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    let (year, month, day, hour, minute, second, _) = moment.to_ymd_hms_milli();
    match (moment.as_f64() < 1.0, (hour, minute, second)) {
        (true, _) => format!("{hour:02}:{minute:02}:{second:02}"),
        (false, (0, 0, 0)) => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
    }
}

/// Writes the rows of one sheet. The first row that is all text, in two cells or more, names the columns; what stands above it are lines of their own.
struct SheetRows<'a> {
    sheet: String,
    /// `None` until it is known; empty where the sheet has none.
    header: Option<BTreeMap<u32, String>>,
    text: &'a mut String,
    limits: &'a Limits,
}

impl SheetRows<'_> {
    /// Cells as column, value, and whether the value is text.
    fn push(&mut self, mut cells: Vec<(u32, String, bool)>) -> Result<(), String> {
        cells.retain(|(_, value, _)| !value.is_empty());
        if self.header.is_none() && cells.len() > 1 {
            let is_header = cells.iter().all(|(_, _, is_text)| *is_text);
            let names = if is_header { cells.iter().map(|(column, value, _)| (*column, value.clone())).collect() } else { BTreeMap::new() };
            self.header = Some(names);
            if is_header {
                return Ok(());
            }
        }
        if cells.is_empty() {
            return Ok(());
        }
        let name = |column: &u32| self.header.as_ref().and_then(|header| header.get(column)).map(String::as_str);
        let named = cells.iter().map(|(column, value, _)| (name(column), value.as_str()));
        csv_table::push_row(self.text, std::iter::once((Some("sheet"), self.sheet.as_str())).chain(named));
        self.limits.check_text(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::fixture;

    #[test]
    fn a_row_can_be_understood_alone_whatever_the_format() {
        let text = |name: &str| parse(&fixture(name), &Limits::default()).unwrap().text;
        insta::assert_snapshot!(text("prices.xlsx"), @"
        sheet: Prices; Price list
        sheet: Prices; sku: G1; product: Alder hand grinder; price: 89.5; since: 2021-03-01
        sheet: Prices; sku: G2; product: Birch electric grinder; price: 249; since: 2023-11-20
        sheet: Notes; Prices include tax.
        ");
        insta::assert_snapshot!(text("prices.xls"), @"
        sheet: Prices; sku: G1; product: Alder hand grinder; price: 89.5; since: 2021-03-01
        sheet: Prices; sku: G2; product: Birch electric grinder; price: 249; since: 2023-11-20
        ");
        insta::assert_snapshot!(text("prices.ods"), @"
        sheet: Prices; sku: G1; product: Alder hand grinder; price: 89.5
        sheet: Prices; sku: G2; product: Birch electric grinder; price: 249
        ");
        assert!(parse(&fixture("returns.docx"), &Limits::default()).unwrap_err().starts_with("is a damaged spreadsheet: "));
    }

    #[test]
    fn numbers_and_dates_read_as_a_sheet_shows_them() {
        assert_eq!(shown(&Data::Float(0.1 + 0.2)), "0.3");
        assert_eq!(shown(&Data::Float(1250.0)), "1250");
        assert_eq!(shown(&Data::String("two\nlines".to_owned())), "two lines");
        let moment = |value, kind| shown_moment(ExcelDateTime::new(value, kind, false));
        assert_eq!(moment(45_000.0, calamine::ExcelDateTimeType::DateTime), "2023-03-15");
        assert_eq!(moment(45_000.75, calamine::ExcelDateTimeType::DateTime), "2023-03-15 18:00:00");
        assert_eq!(moment(1.5, calamine::ExcelDateTimeType::TimeDelta), "36:00:00");
    }
}
