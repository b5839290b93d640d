//! Kubernetes' `resource.Quantity`: read, and written in the one form that equal quantities share.

/// Why a text is no quantity. The words are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

/// Smallest unit that a quantity holds: 10⁻⁹.
const NANO_DIGITS: u32 = 9;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// The canonical text of a quantity: `2000m` is `2`, `1024Mi` is `1Gi`, `0.5` is `500m`. No digits are zero.
///
/// # Errors
/// When it is no quantity, or beyond what Kubernetes holds exactly.
pub fn canonical_quantity(text: &str) -> Result<String, ParseQuantityError> {
    if text.is_empty() {
        return Err(ParseQuantityError);
    }
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (scale, format) = scale_of(suffix).ok_or(ParseQuantityError)?;
    let nanos = nanos(number, scale).ok_or(ParseQuantityError)?;
    let sign = if negative && nanos > 0 { "-" } else { "" };
    Ok(format!("{sign}{}", write(nanos, format)))
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale_of(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Two(*power), Format::Binary));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Ten(*power), Format::Decimal));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Scale::Ten(power), Format::Exponent))
}

/// Billionths, rounded up as Kubernetes does.
fn nanos(number: &str, scale: Scale) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let decimals = u32::try_from(fraction.len()).ok()?;
    match scale {
        Scale::Ten(power) => {
            let exponent =
                power.checked_add(i32::try_from(NANO_DIGITS).ok()?)?.checked_sub(i32::try_from(decimals).ok()?)?;
            let factor = 10u128.checked_pow(exponent.unsigned_abs());
            if exponent >= 0 {
                digits.checked_mul(factor?)
            } else {
                Some(factor.map_or(u128::from(digits > 0), |factor| digits.div_ceil(factor)))
            }
        }
        Scale::Two(power) => {
            let scaled = digits.checked_mul(1u128 << power)?.checked_mul(10u128.pow(NANO_DIGITS))?;
            Some(scaled.div_ceil(10u128.checked_pow(decimals)?))
        }
    }
}

fn write(nanos: u128, format: Format) -> String {
    let one = 10u128.pow(NANO_DIGITS);
    if nanos == 0 {
        return "0".to_owned();
    }
    if format == Format::Binary && nanos.is_multiple_of(one) {
        let value = nanos / one;
        // Below 1024, Kubernetes writes a plain number.
        let unit = BINARY.iter().rev().find(|(_, power)| value.is_multiple_of(1u128 << power));
        return unit.map_or_else(|| value.to_string(), |(name, power)| format!("{}{name}", value >> power));
    }
    let mut digits = nanos;
    let mut exponent = -9i32;
    while digits.is_multiple_of(1000) && exponent < 18 {
        digits /= 1000;
        exponent += 3;
    }
    match format {
        Format::Exponent if exponent != 0 => format!("{digits}e{exponent}"),
        _ => {
            let unit = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(name, _)| *name);
            format!("{digits}{unit}")
        }
    }
}
