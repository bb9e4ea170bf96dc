//! Reads events from a CSV file of invoice lines. In: the file. Out: one event for each row that
//! names a customer, in the file's order; or an error that names the first broken rows, each with
//! its row, line, column and reason; or, where they are to be left out, how many there were. A row
//! that does not end is not read into memory beyond a limit.

use super::calendar::unix_seconds;
use super::decimal::Decimal;
use super::event::{BUCKETS, Event};
use crate::error::{Code, Error, Result};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

/// The longest row, in bytes.
const ROW_MAX: u64 = 1 << 20;
/// Broken rows that an error names.
const NAMED_MAX: usize = 5;

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// Its events.
    pub(super) events: Vec<Event>,
    /// Rows that were broken and left out.
    pub(super) skipped: u64,
}

/// Reads a file. With `skip_bad` broken rows are left out and counted.
///
/// # Errors
/// `InvalidConfig` when the file cannot be read; `InvalidRequest` with file, row, line, column and
/// reason when it is no such table or, without `skip_bad`, when rows are broken.
pub(super) fn read_file(path: &Path, skip_bad: bool) -> Result<Input> {
    let name = path.display().to_string();
    let cannot = |what: String| {
        Error::new(Code::InvalidConfig, format!("the input cannot be read: {what}"))
            .at(format!("option input, {name}"))
            .remedy("name a CSV file")
    };
    if path.is_dir() {
        return Err(cannot("it is a directory".to_owned()));
    }
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    read(file, &name, skip_bad)
}

/// Lets no row grow beyond [`ROW_MAX`]: `allowed` is how far the file may be read for the present row.
struct Bounded<R> {
    input: R,
    taken: u64,
    allowed: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken > self.allowed.get() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TOO_LONG));
        }
        let count = self.input.read(buffer)?;
        self.taken += count as u64;
        Ok(count)
    }
}

/// A row that is too long; its end is not looked for, so that it cannot be left out either.
const TOO_LONG: &str = "the row is longer than 1 MiB; is a quotation mark missing?";

/// Reads rows; `name` is what errors call their origin.
pub(super) fn read(input: impl Read, name: &str, skip_bad: bool) -> Result<Input> {
    let allowed = Rc::new(Cell::new(ROW_MAX));
    let bounded = Bounded { input, taken: 0, allowed: allowed.clone() };
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(bounded);
    let columns = Columns::find(&mut reader, name)?;
    let mut found = Input::default();
    let mut broken = Broken::default();
    let mut newest = Newest::default();
    let mut record = ByteRecord::new();
    let mut rows = 0;
    for row in 1.. {
        allowed.set(reader.position().byte() + ROW_MAX);
        if !reader.read_byte_record(&mut record).map_err(|error| from_csv(name, row, &error))? {
            break;
        }
        rows = row;
        match columns.event(&record, row).and_then(|event| newest.in_window(event)) {
            Ok(event) => found.events.extend(event),
            Err(why) => broken.note(row, record.position().map_or(0, csv::Position::line), why),
        }
    }
    if broken.count > 0 && !skip_bad {
        return Err(broken.error(name, rows));
    }
    found.skipped = broken.count;
    Ok(found)
}

/// Each customer's newest sub-window so far, and the row that it is of.
#[derive(Default)]
struct Newest(HashMap<String, (i64, u64)>);

impl Newest {
    /// The event, unless it comes after one that its window has passed: the grid would refuse it.
    fn in_window(&mut self, event: Option<Event>) -> Result<Option<Event>, (&'static str, String)> {
        let Some(event) = event else { return Ok(None) };
        let bucket = event.bucket();
        match self.0.get(&event.customer).copied() {
            Some((newest, row)) if bucket <= newest - i64::from(BUCKETS) => {
                let why = format!("row {row} of the same customer is over a week newer, and stands before it");
                return Err(("InvoiceDate", why));
            }
            Some((newest, _)) if newest >= bucket => {}
            _ => {
                self.0.insert(event.customer.clone(), (bucket, event.row));
            }
        }
        Ok(Some(event))
    }
}

/// The broken rows: how many, and what is wrong with the first.
#[derive(Default)]
struct Broken {
    count: u64,
    named: Vec<String>,
}

impl Broken {
    fn note(&mut self, row: u64, line: u64, (column, why): (&'static str, String)) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("row {row} (line {line}), {column}: {why}"));
        }
    }

    fn error(&self, name: &str, rows: u64) -> Error {
        let more = self.count - self.named.len() as u64;
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        let what = format!("{} of {rows} rows are broken: {}{more}", self.count, self.named.join("; "));
        Error::new(Code::InvalidRequest, what).at(name).remedy("correct the rows, or leave them out with --skip-bad")
    }
}

fn bad(place: &str, what: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, what).at(place).remedy("correct the file")
}

fn from_csv(name: &str, row: u64, error: &csv::Error) -> Error {
    match error.kind() {
        csv::ErrorKind::Io(error) => bad(&format!("{name}, row {row}"), error.to_string()),
        _ => bad(&format!("{name}, row {row}"), error.to_string()),
    }
}

/// Shortened for a message.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let end = if short.len() < text.len() { "..." } else { "" };
    format!("\"{}{end}\"", short.escape_debug())
}

/// Where the columns stand that matter.
struct Columns {
    count: usize,
    customer: usize,
    time: usize,
    quantity: usize,
    price: usize,
}

impl Columns {
    fn find<R: Read>(reader: &mut Reader<R>, name: &str) -> Result<Columns> {
        let header = reader.byte_headers().map_err(|error| from_csv(name, 0, &error))?;
        if header.is_empty() {
            return Err(bad(&format!("{name}:1"), "the file is empty: it has no header"));
        }
        let begins = header.get(0).unwrap_or_default();
        if begins.starts_with(&[0xFF, 0xFE]) || begins.starts_with(&[0xFE, 0xFF]) {
            return Err(bad(&format!("{name}:1"), "the file is in UTF-16").remedy("save it as UTF-8"));
        }
        let find = |column: &str| {
            header
                .iter()
                .position(|field| field == column.as_bytes())
                .ok_or_else(|| bad(&format!("{name}:1"), format!("the header has no column \"{column}\"")))
        };
        Ok(Columns {
            count: header.len(),
            customer: find("CustomerID")?,
            time: find("InvoiceDate")?,
            quantity: find("Quantity")?,
            price: find("UnitPrice")?,
        })
    }

    /// The row's event; `None` if it names no customer; else the column that is broken, and why.
    fn event(&self, record: &ByteRecord, row: u64) -> Result<Option<Event>, (&'static str, String)> {
        if record.len() != self.count {
            return Err(("columns", format!("the row has {} fields, the header {}", record.len(), self.count)));
        }
        let customer = text(record, self.customer, "CustomerID")?;
        if customer.is_empty() {
            return Ok(None);
        }
        let number = |at: usize, name: &'static str| {
            let text = text(record, at, name)?;
            Decimal::parse(text).ok_or_else(|| (name, format!("{} is not a decimal number", shown(text))))
        };
        let id = number(self.customer, "CustomerID")?
            .whole()
            .ok_or_else(|| ("CustomerID", format!("{} is not a whole number", shown(customer))))?;
        let time = text(record, self.time, "InvoiceDate")?;
        let time_s = unix_seconds(time)
            .ok_or_else(|| ("InvoiceDate", format!("{} is not of the form YYYY-MM-DD HH:MM:SS", shown(time))))?;
        let pence = number(self.quantity, "Quantity")?
            .hundredths_of_product(number(self.price, "UnitPrice")?)
            .ok_or_else(|| ("Quantity", "multiplied by UnitPrice it does not fit into 64 bits".to_owned()))?;
        Ok(Some(Event { row, customer: id.to_string(), time_s, pence }))
    }
}

fn text<'a>(record: &'a ByteRecord, at: usize, column: &'static str) -> Result<&'a str, (&'static str, String)> {
    let field = record.get(at).unwrap_or_default();
    std::str::from_utf8(field).map_err(|_| (column, "the field is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";
    const GOOD: &str = "1,a,x,3,2010-12-01 08:34:00,4.95,13047.0,UK\n";

    fn parse(rows: &str) -> Result<Vec<Event>> {
        read(format!("{HEADER}{rows}").as_bytes(), "in.csv", false).map(|input| input.events)
    }

    #[test]
    fn rows_become_events_and_keep_their_numbers() {
        let rows = "1,a,\"MUG, \"\"LARGE\"\"\",3,2010-12-01 08:34:00,4.95,13047.0,United Kingdom\n\
             2,b,no customer,1,2010-12-01 08:35:00,1.00,,France\n\
             C3,c,returned,-2,2010-12-01 09:00:00,2.55,13047.0,United Kingdom\n";
        let event = |row, time_s, pence| Event { row, customer: "13047".to_owned(), time_s, pence };
        let expected = [event(1, 1_291_192_440, 1485), event(3, 1_291_194_000, -510)];
        assert_eq!(parse(rows).expect("reads"), expected);
        // A byte order mark, line ends of another system, Latin-1 where it does not matter.
        let mut other = vec![0xEF, 0xBB, 0xBF];
        other.extend(format!("{HEADER}{rows}").replace('\n', "\r\n").replace("no customer", "caf#").bytes());
        other.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = 0xE9);
        assert_eq!(read(&other[..], "in.csv", false).expect("reads").events, expected);
    }

    #[test]
    fn a_row_that_its_customers_window_has_left_behind_is_broken() {
        let dated = |date: &str| GOOD.replace("2010-12-01 08:34", date);
        let other = GOOD.replace("13047", "1");
        // Late, but within the week; then a typing error in a year; whose window has passed what comes then.
        let rows = [dated("2010-12-07 23:59"), dated("2010-12-01 00:30"), dated("9010-12-08 00:00"), GOOD.to_owned()];
        let rows = format!("{}{other}", rows.concat());
        let error = parse(&rows).expect_err("one row is broken");
        let said =
            "1 of 5 rows are broken: row 4 (line 5), InvoiceDate: row 3 of the same customer is over a week newer";
        assert!(error.what.starts_with(said), "{error}");
        let left = read(format!("{HEADER}{rows}").as_bytes(), "in.csv", true).expect("reads");
        assert_eq!((left.skipped, left.events.iter().map(|event| event.row).collect()), (1, vec![1, 2, 3, 5]));
    }

    #[test]
    fn a_broken_row_is_named_with_row_line_column_and_reason() {
        let table = [
            ("1,a,x,three,2010-12-01 08:34:00,4.95,13047.0,UK\n", "Quantity: \"three\""),
            ("1,a,x,3,2010-12-01,4.95,13047.0,UK\n", "InvoiceDate: \"2010-12-01\""),
            ("1,a,x,3,2010-12-01 08:34:00,4.95,abc,UK\n", "CustomerID: \"abc\""),
            ("1,a,x,3,2010-12-01 08:34:00,4.95,1.5,UK\n", "not a whole number"),
            ("1,a,x,99999999999999999999,2010-12-01 08:34:00,4.95,1,UK\n", "Quantity"),
            ("1,a,x\n", "columns: the row has 3 fields, the header 8"),
            ("1,\"a,x,3,2010-12-01 08:34:00,4.95,13047.0,UK\n", "columns: the row has 2 fields"),
        ];
        for (line, says) in table {
            let error = parse(&format!("{GOOD}{line}")).expect_err("a bad line");
            assert_eq!((error.code, error.place.as_str()), (Code::InvalidRequest, "in.csv"), "{error}");
            assert!(error.what.starts_with("1 of 2 rows are broken: row 2 (line 3), "), "{error}");
            assert!(error.what.contains(says) && error.remedy.contains("--skip-bad"), "{error}");
        }
    }

    #[test]
    fn only_the_first_broken_rows_are_named_and_all_can_be_skipped() {
        let text = format!("{HEADER}{}{GOOD}", "1,a\n".repeat(8));
        let error = read(text.as_bytes(), "in.csv", false).expect_err("broken");
        assert!(error.what.starts_with("8 of 9 rows are broken: row 1 (line 2), "), "{error}");
        assert!(error.what.ends_with("; and 3 more"), "{error}");
        let input = read(text.as_bytes(), "in.csv", true).expect("reads");
        assert_eq!((input.skipped, input.events.len(), input.events[0].row), (8, 1, 9));
    }

    #[test]
    fn a_file_that_is_no_such_table_is_refused() {
        let refused = |bytes: &[u8]| read(bytes, "in.csv", true).expect_err("refused");
        let error = refused(b"Quantity,InvoiceDate,CustomerID\n");
        assert_eq!(error.place, "in.csv:1");
        assert!(error.what.contains("UnitPrice"), "{error}");
        assert!(refused(b"").what.contains("empty"));
        let utf16: Vec<u8> =
            [0xFF, 0xFE].into_iter().chain("Quantity".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert!(refused(&utf16).what.contains("UTF-16"));
    }

    #[test]
    fn a_row_that_does_not_end_is_not_taken_into_memory() {
        let taken = Rc::new(Cell::new(0));
        struct Endless(Rc<Cell<u64>>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                self.0.set(self.0.get() + buffer.len() as u64);
                Ok(buffer.len())
            }
        }
        let start = format!("{HEADER}{GOOD}1,\"");
        let error = read(start.as_bytes().chain(Endless(taken.clone())), "in.csv", true).expect_err("endless");
        assert!(error.what.contains("1 MiB") && error.place.contains("row 2"), "{error}");
        assert!(taken.get() < 2 * ROW_MAX, "{} bytes were read", taken.get());
    }
}
