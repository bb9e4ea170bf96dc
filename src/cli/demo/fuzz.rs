//! Fuzz targets: the invoice lines of a CSV file, their numbers and times.

use super::calendar::unix_seconds;
use super::decimal::Decimal;
use super::retail;
use crate::error::Code;
use crate::fuzzing::Fuzz;

const FILE: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n\
    536365,85123A,\"WHITE HEART, HOLDER\",6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n\
    C536379,D,Discount,-1,2010-12-01 09:41:00,27.50,14527,UK\r\n\
    536414,22139,,56,2010-12-01 11:52:00,0.0,,United Kingdom\n";

#[test]
fn csv_file() {
    let broken = FILE.replace("6,2010", "six,2010").replace("17850.0", "17850.5");
    let words: &[&str] = &["\"", "\"\"", ",", "\n", "\r\n", "-", "+", ".", "\u{feff}", "2012-02-30 25:61:61", "1e9"];
    Fuzz::new("csv_file", [FILE.to_owned(), broken, FILE.replace(',', ";"), FILE[..80].to_owned()]).words(words).run(
        |input| match retail::read(input, "a file", false) {
            Ok(read) => {
                assert_eq!(read.skipped, 0);
                let again = retail::read(input, "a file", true).expect("nothing is broken");
                assert_eq!(again, read);
                format!("{} events", read.events.len().min(3))
            }
            Err(error) => {
                assert_eq!(error.code, Code::InvalidRequest);
                // Without the broken rows it is read, unless it is no such table at all.
                let skipped = retail::read(input, "a file", true).map(|read| read.skipped > 0);
                assert!(skipped != Ok(false), "a file with broken rows has some: {error}");
                error.what
            }
        },
    );
}

#[test]
fn decimal_and_time() {
    let seeds =
        ["13047.0", "-3", "+.5", "4.", "99999999999999999", "2010-12-01 08:34:00", "2000-02-29 23:59:59", " 1 "];
    Fuzz::new("decimal_and_time", seeds).words(&["-", "+", ".", " ", "\u{2009}", "é", "0000-01-01 00:00:00"]).run(
        |input| {
            let text = String::from_utf8_lossy(input);
            let (decimal, time) = (Decimal::parse(&text), unix_seconds(&text));
            if let Some(decimal) = decimal {
                decimal.whole();
                decimal.hundredths_of_product(decimal);
            }
            assert!(time.is_none_or(|time| (-62_167_219_200..253_402_300_800).contains(&time)), "{time:?}");
            format!("{} {}", decimal.is_some(), time.is_some())
        },
    );
}
