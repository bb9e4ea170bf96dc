//! Reads events from a CSV file of invoice lines. In: the file. Out: one event for each row that
//! names a customer, in the file's order, or an error that names file and line.

use super::calendar::unix_seconds;
use super::decimal::Decimal;
use super::event::Event;
use crate::error::{Code, Error, Result};
use csv::{ByteRecord, Reader};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a file.
///
/// # Errors
/// `InvalidRequest` with file and line when the file cannot be read or a row is not what it should be.
pub(super) fn read_file(path: &Path) -> Result<Vec<Event>> {
    let name = path.display().to_string();
    let file = File::open(path)
        .map_err(|error| bad(&name, format!("the input cannot be opened: {error}")).remedy("name a CSV file"))?;
    read(file, &name)
}

/// Reads rows; `name` is what errors call their origin.
pub(super) fn read(input: impl Read, name: &str) -> Result<Vec<Event>> {
    let mut reader = Reader::from_reader(input);
    let columns = Columns::find(&mut reader, name)?;
    let mut events = Vec::new();
    let mut record = ByteRecord::new();
    for row in 1.. {
        let more = reader.read_byte_record(&mut record).map_err(|error| from_csv(name, &error))?;
        if !more {
            break;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let at = |what: String| bad(&format!("{name}:{line}"), what);
        if let Some(event) = columns.event(&record, row).map_err(at)? {
            events.push(event);
        }
    }
    Ok(events)
}

fn bad(place: &str, what: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, what).at(place).remedy("correct the line, or the file's columns")
}

fn from_csv(name: &str, error: &csv::Error) -> Error {
    match error.position() {
        Some(position) => bad(&format!("{name}:{}", position.line()), error.to_string()),
        None => bad(name, error.to_string()),
    }
}

/// Where the columns stand that matter.
struct Columns {
    customer: usize,
    time: usize,
    quantity: usize,
    price: usize,
}

impl Columns {
    fn find<R: Read>(reader: &mut Reader<R>, name: &str) -> Result<Columns> {
        let header = reader.byte_headers().map_err(|error| from_csv(name, &error))?;
        let find = |column: &str| {
            header
                .iter()
                .position(|field| field == column.as_bytes())
                .ok_or_else(|| bad(&format!("{name}:1"), format!("the header has no column \"{column}\"")))
        };
        Ok(Columns {
            customer: find("CustomerID")?,
            time: find("InvoiceDate")?,
            quantity: find("Quantity")?,
            price: find("UnitPrice")?,
        })
    }

    /// The row's event; `None` if it names no customer.
    fn event(&self, record: &ByteRecord, row: u64) -> Result<Option<Event>, String> {
        let customer = text(record, self.customer)?;
        if customer.is_empty() {
            return Ok(None);
        }
        let number = |at: usize, name: &str| {
            let text = text(record, at)?;
            Decimal::parse(text).ok_or_else(|| format!("{name} \"{text}\" is not a decimal number"))
        };
        let id = number(self.customer, "CustomerID")?
            .whole()
            .ok_or_else(|| format!("CustomerID \"{customer}\" is not a whole number"))?;
        let time = text(record, self.time)?;
        let time_s = unix_seconds(time)
            .ok_or_else(|| format!("InvoiceDate \"{time}\" is not of the form YYYY-MM-DD HH:MM:SS"))?;
        let pence = number(self.quantity, "Quantity")?
            .hundredths_of_product(number(self.price, "UnitPrice")?)
            .ok_or_else(|| "Quantity x UnitPrice does not fit into 64 bits".to_owned())?;
        Ok(Some(Event { row, customer: id.to_string(), time_s, pence }))
    }
}

fn text(record: &ByteRecord, at: usize) -> Result<&str, String> {
    let field = record.get(at).unwrap_or_default();
    std::str::from_utf8(field).map_err(|_| "a field that matters is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn parse(rows: &str) -> Result<Vec<Event>> {
        read(format!("{HEADER}{rows}").as_bytes(), "in.csv")
    }

    #[test]
    fn rows_become_events_and_keep_their_numbers() {
        let events = parse(
            "1,a,\"MUG, \"\"LARGE\"\"\",3,2010-12-01 08:34:00,4.95,13047.0,United Kingdom\n\
             2,b,no customer,1,2010-12-01 08:35:00,1.00,,France\n\
             C3,c,returned,-2,2010-12-01 09:00:00,2.55,13047.0,United Kingdom\n",
        )
        .expect("reads");
        let event = |row, time_s, pence| Event { row, customer: "13047".to_owned(), time_s, pence };
        assert_eq!(events, [event(1, 1_291_192_440, 1485), event(3, 1_291_194_000, -510)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = "1,a,x,3,2010-12-01 08:34:00,4.95,13047.0,UK\n";
        let table = [
            ("1,a,x,three,2010-12-01 08:34:00,4.95,13047.0,UK\n", "Quantity \"three\""),
            ("1,a,x,3,2010-12-01,4.95,13047.0,UK\n", "InvoiceDate"),
            ("1,a,x,3,2010-12-01 08:34:00,4.95,abc,UK\n", "CustomerID \"abc\""),
            ("1,a,x,3,2010-12-01 08:34:00,4.95,1.5,UK\n", "not a whole number"),
            ("1,a,x\n", "fields"),
        ];
        for (line, says) in table {
            let error = parse(&format!("{good}{line}")).expect_err("a bad line");
            assert_eq!(error.place, "in.csv:3", "{error}");
            assert!(error.what.contains(says), "{error}");
        }
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = read("Quantity,InvoiceDate,CustomerID\n".as_bytes(), "in.csv").expect_err("no price");
        assert_eq!(error.place, "in.csv:1");
        assert!(error.what.contains("UnitPrice"), "{error}");
    }
}
