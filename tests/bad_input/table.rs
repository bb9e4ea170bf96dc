//! The demo's input: files that cannot be read, broken rows, an output that must not be lost.

use crate::process::keystead;

const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";
const GOOD: &str = "1,a,x,3,2010-12-01 08:34:00,4.95,13047.0,UK\n";

#[test]
fn an_input_that_cannot_be_read_is_wrong_usage() {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = |input: &str| keystead(["demo", "--input", input]);
    demo("/no/such.csv").says(2, &["KS1007", "option input, /no/such.csv", "cannot be read"]);
    demo(&dir.path().to_string_lossy()).says(2, &["KS1007", "it is a directory"]);
    keystead(["demo", "--output", "/no/such/place.csv"]).says(2, &["KS1007", "option output, /no/such/place.csv"]);
}

#[test]
fn broken_rows_are_named_before_anything_else_happens() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
    std::fs::write(&input, format!("{HEADER}{GOOD}1,a\n{GOOD}1,a,x,3,yesterday,4.95,13047.0,UK\n")).expect("writes");
    std::fs::write(&output, "of an earlier run").expect("writes");
    let (input, path) = (input.to_string_lossy().into_owned(), output.to_string_lossy().into_owned());
    let said = keystead(["demo", "--input", &input, "--output", &path]);
    let rows = ["2 of 4 rows are broken", "row 2 (line 3), columns: the row has 2 fields, the header 8"];
    said.says(2, &["KS1001", "in.csv", rows[0], rows[1], "row 4 (line 5), InvoiceDate: \"yesterday\"", "--skip-bad"]);
    assert_eq!(std::fs::read_to_string(&output).expect("the output"), "of an earlier run");
    keystead(["demo", "--input", &input, "--skip-bad", "--output", &input]).says(2, &["KS1007", "it is the input"]);
    assert!(std::fs::read_to_string(&input).expect("the input").starts_with(HEADER));
}

#[test]
fn broken_rows_can_be_left_out_and_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
    let text = format!("\u{feff}{HEADER}{}1,a\n{}", GOOD.repeat(120), GOOD.repeat(80)).replace('\n', "\r\n");
    std::fs::write(&input, text).expect("writes");
    let arguments = ["demo", "--rate", "100", "--json", "--skip-bad", "--input"].map(str::to_owned);
    let paths = [input.to_string_lossy().into_owned(), "--output".into(), output.to_string_lossy().into_owned()];
    let said = keystead(arguments.into_iter().chain(paths));
    let figures: serde_json::Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((&figures["skipped_rows"], &figures["events"]), (&1.into(), &200.into()), "{said:?}");
    assert_eq!(std::fs::read_to_string(&output).expect("the output").lines().count(), 201);
}

#[test]
fn a_file_that_is_no_such_table_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("in.csv");
    let demo = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("writes");
        keystead(["demo", "--skip-bad", "--input", &path.to_string_lossy()])
    };
    demo(b"").says(2, &["KS1001", "in.csv:1", "the file is empty"]);
    demo(HEADER.as_bytes()).says(2, &["KS1001", "there is no event to send", "in.csv"]);
    demo(b"a,b\n1,2\n").says(2, &["KS1001", "in.csv:1", "no column \"CustomerID\""]);
    demo(&[0xFF, 0xFE, b'a', 0]).says(2, &["KS1001", "UTF-16", "save it as UTF-8"]);
    let endless = format!("{HEADER}{GOOD}1,\"{}", "x".repeat(3 << 20));
    demo(endless.as_bytes()).says(2, &["KS1001", "row 2", "longer than 1 MiB", "quotation mark"]);
}
