//! Of decimal numbers, exact where binary ones are not: 0.1 and 0.2 are 0.3.

use gotmpl::{Result, Value};

use super::super::functions::{Function, arg, number, refuse};
use super::numbers::decimal;

/// Digits behind the point of a quotient.
const QUOTIENT_DIGITS: u32 = 16;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("add1f", |args| folded(args, Some(Exact::ONE), Exact::plus)),
    ("addf", |args| folded(args, Some(Exact::ZERO), Exact::plus)),
    ("divf", |args| folded(args, None, Exact::over)),
    ("mulf", |args| folded(args, None, Exact::times)),
    ("round", rounded),
    ("subf", |args| folded(args, None, Exact::minus)),
    ("toDecimal", |args| {
        let octal = arg(args, 0)?.to_string();
        Ok(Value::Int(i64::from_str_radix(&octal, 8).unwrap_or_default()))
    }),
];

/// `digits` × 10^-`places`.
#[derive(Clone, Copy)]
struct Exact {
    digits: i128,
    places: u32,
}

impl Exact {
    const ZERO: Self = Self { digits: 0, places: 0 };
    const ONE: Self = Self { digits: 1, places: 0 };

    /// The shortest decimal number that a binary one is written as.
    fn of(value: f64) -> Option<Self> {
        let text = value.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits, places: u32::try_from(fraction.len()).ok()? })
    }

    fn value(self) -> f64 {
        format!("{}e-{}", self.digits, self.places).parse().unwrap_or_default()
    }

    /// Its digits with more places.
    fn with(self, places: u32) -> Option<i128> {
        self.digits.checked_mul(10i128.checked_pow(places.checked_sub(self.places)?)?)
    }

    fn plus(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        Some(Self { digits: self.with(places)?.checked_add(other.with(places)?)?, places })
    }

    fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { digits: other.digits.checked_neg()?, ..other })
    }

    fn times(self, other: Self) -> Option<Self> {
        Some(Self { digits: self.digits.checked_mul(other.digits)?, places: self.places + other.places })
    }

    /// The quotient, rounded half away from zero.
    fn over(self, other: Self) -> Option<Self> {
        let dividend = self.with(self.places.max(other.places) + QUOTIENT_DIGITS)?;
        let divisor = other.with(self.places.max(other.places))?;
        let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
        let is_half = rest.checked_abs()?.checked_mul(2)? >= divisor.checked_abs()?;
        let sign = if (dividend < 0) == (divisor < 0) { 1 } else { -1 };
        Some(Self { digits: quotient + if is_half { sign } else { 0 }, places: QUOTIENT_DIGITS })
    }
}

fn folded(args: &[Value], start: Option<Exact>, operation: fn(Exact, Exact) -> Option<Exact>) -> Result<Value> {
    let numbers = args.iter().map(|value| Exact::of(decimal(value)));
    let result = match start {
        Some(start) => numbers.into_iter().try_fold(start, |result, next| operation(result, next?)),
        None => numbers.reduce(|result, next| operation(result?, next?)).flatten(),
    };
    result.map_or_else(|| refuse("no such number"), |result| Ok(Value::Float(result.value())))
}

/// `round NUMBER PLACES [FROM]`: up from a fraction of `FROM`, which is a half.
fn rounded(args: &[Value]) -> Result<Value> {
    let places = i32::try_from(number(args, 1)?).unwrap_or_default();
    let from = args.get(2).map_or(0.5, decimal);
    let power = 10f64.powi(places);
    let digits = power * decimal(arg(args, 0)?);
    let rounded = if digits.fract() >= from { digits.ceil() } else { digits.floor() };
    Ok(Value::Float(rounded / power))
}
