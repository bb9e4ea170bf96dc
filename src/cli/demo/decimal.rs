//! Exact decimal numbers, as price lists write them: `12`, `-3`, `4.95`. No floating point.

/// Digits that a number may have; two such numbers and a factor of 100 fit into 128 bits.
const MAX_DIGITS: usize = 17;

/// A decimal number: `digits / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// Reads an optional sign, digits, and at most one point among them.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim();
        let (sign, unsigned) = match text.as_bytes().first()? {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let count = whole.len() + fraction.len();
        if count == 0 || count > MAX_DIGITS || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        Some(Decimal { digits: sign * digits, scale: fraction.len() as u32 })
    }

    /// The number as an integer, if it is one: `13047.0` is.
    pub(super) fn whole(self) -> Option<i64> {
        let unit = 10_i128.pow(self.scale);
        if self.digits % unit == 0 { i64::try_from(self.digits / unit).ok() } else { None }
    }

    /// The product in hundredths, rounded to the nearest integer, halves away from zero.
    pub(super) fn hundredths_of_product(self, other: Decimal) -> Option<i64> {
        let product = self.digits.checked_mul(other.digits)?.checked_mul(100)?;
        let unit = 10_i128.pow(self.scale + other.scale);
        let (quotient, rest) = (product / unit, product % unit);
        let away = if rest.abs() * 2 >= unit { product.signum() } else { 0 };
        i64::try_from(quotient + away).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pence(quantity: &str, price: &str) -> Option<i64> {
        Decimal::parse(quantity)?.hundredths_of_product(Decimal::parse(price)?)
    }

    #[test]
    fn halves_round_away_from_zero() {
        let table = [
            ("3", "4.95", 1485),
            ("-1", "2.55", -255),
            ("1", "0.005", 1),
            ("-1", "0.005", -1),
            ("1", "0.0049", 0),
            ("-1", "0.0049", 0),
            ("5", "0.001", 1),
            ("-5", "0.001", -1),
            ("-3", "0.005", -2),
            ("1", "1.015", 102),
            ("0", "9.99", 0),
            ("1", "11062.06", 1_106_206),
        ];
        for (quantity, price, expected) in table {
            assert_eq!(pence(quantity, price), Some(expected), "{quantity} x {price}");
        }
    }

    #[test]
    fn only_plain_decimals_are_read() {
        for good in ["0", "-0", "+1", " 2 ", ".5", "5.", "13047.0"] {
            assert!(Decimal::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-", ".", "1e3", "1,5", "--1", "1.2.3", "nan", "٣", "123456789012345678"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        assert_eq!(Decimal::parse("13047.0").and_then(Decimal::whole), Some(13047));
        assert_eq!(Decimal::parse("13047").and_then(Decimal::whole), Some(13047));
        assert_eq!(Decimal::parse("13047.5").and_then(Decimal::whole), None);
    }

    proptest! {
        #[test]
        fn whole_pence_are_exact(quantity in -100_000i64..100_000, pence_each in 0i64..10_000_000) {
            let price = format!("{}.{:02}", pence_each / 100, pence_each % 100);
            prop_assert_eq!(pence(&quantity.to_string(), &price), Some(quantity * pence_each));
        }

        #[test]
        fn the_sign_only_turns_the_result(quantity in 0i64..1000, thousandths in 0i64..1_000_000) {
            let price = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            let plus = pence(&quantity.to_string(), &price);
            let minus = pence(&format!("-{quantity}"), &price);
            prop_assert_eq!(plus.map(|pence| -pence), minus);
        }
    }
}
