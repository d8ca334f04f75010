//! Scalars known when the program is built.

use super::ty::Scalar;
use std::fmt;

/// A value of a scalar type, or NULL. Made by the constructors only, so that value and type agree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Literal {
    scalar: Scalar,
    value: Value,
}

/// The value of a literal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// Bool.
    Bool(bool),
    /// Integer, unscaled decimal, date (days) or timestamp (microseconds).
    Int(i128),
    /// `f64::to_bits` of a float.
    Float(u64),
    /// Interval.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// Text.
    String(String),
}

impl Literal {
    /// NULL of a type.
    pub fn null(scalar: Scalar) -> Literal {
        Literal { scalar, value: Value::Null }
    }

    /// A bool.
    pub fn bool(value: bool) -> Literal {
        Literal { scalar: Scalar::Bool, value: Value::Bool(value) }
    }

    /// An integer type's value; `None` if it does not fit (or `scalar` is no integer type).
    pub fn int(scalar: Scalar, value: i128) -> Option<Literal> {
        let (lo, hi) = int_range(scalar)?;
        (lo..=hi).contains(&value).then_some(Literal { scalar, value: Value::Int(value) })
    }

    /// An i64.
    pub fn i64(value: i64) -> Literal {
        Literal { scalar: Scalar::I64, value: Value::Int(value.into()) }
    }

    /// A float type's value, rounded to it; `None` if `scalar` is no float type.
    pub fn float(scalar: Scalar, value: f64) -> Option<Literal> {
        let rounded = match scalar {
            Scalar::F16 => half::f16::from_f64(value).to_f64(),
            Scalar::BF16 => half::bf16::from_f64(value).to_f64(),
            Scalar::F32 => value as f32 as f64,
            Scalar::F64 => value,
            _ => return None,
        };
        Some(Literal { scalar, value: Value::Float(rounded.to_bits()) })
    }

    /// A decimal: `unscaled` times 10^-`scale`; `None` if it has more digits than `precision` or the type is ill-formed.
    pub fn decimal(unscaled: i128, precision: u8, scale: u8) -> Option<Literal> {
        let well_formed = (1..=38).contains(&precision) && scale <= precision;
        let fits = well_formed && unscaled.unsigned_abs() < 10u128.pow(precision.into());
        fits.then_some(Literal { scalar: Scalar::decimal(precision, scale), value: Value::Int(unscaled) })
    }

    /// A decimal from text such as `-12.50`, with as many digits as are written.
    pub fn parse_decimal(text: &str) -> Option<Literal> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || all.len() > 38 || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let unscaled: i128 = all.parse().ok()?;
        let scale = fraction.len() as u8;
        let significant = all.trim_start_matches('0').len() as u8;
        Literal::decimal(if negative { -unscaled } else { unscaled }, significant.max(scale).max(1), scale)
    }

    /// Days since 1970-01-01.
    pub fn date(days: i32) -> Literal {
        Literal { scalar: Scalar::Date, value: Value::Int(days.into()) }
    }

    /// A date from text such as `1994-01-01`; `None` if there is no such day.
    pub fn parse_date(text: &str) -> Option<Literal> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next()?.parse::<u32>().ok();
        let (year, month, day) = (next()?, next()?, next()?);
        let days = days_from_civil(i64::from(year), month, day)?;
        Some(Literal::date(i32::try_from(days).ok()?))
    }

    /// Microseconds since 1970-01-01 00:00:00.
    pub fn timestamp(micros: i64) -> Literal {
        Literal { scalar: Scalar::Timestamp, value: Value::Int(micros.into()) }
    }

    /// An interval.
    pub fn interval(months: i32, days: i32, micros: i64) -> Literal {
        Literal { scalar: Scalar::Interval, value: Value::Interval { months, days, micros } }
    }

    /// Text.
    pub fn string(text: impl Into<String>) -> Literal {
        Literal { scalar: Scalar::String, value: Value::String(text.into()) }
    }

    /// Type.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// Value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Is it NULL?
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The integer behind an integer, decimal, date or timestamp.
    pub fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(i) => Some(i),
            _ => None,
        }
    }

    /// The characters of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a float.
    pub fn as_float(&self) -> Option<f64> {
        match self.value {
            Value::Float(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }
}

/// Smallest and largest value of an integer type.
pub fn int_range(scalar: Scalar) -> Option<(i128, i128)> {
    Some(match scalar {
        Scalar::I8 => (i8::MIN.into(), i8::MAX.into()),
        Scalar::U8 => (0, u8::MAX.into()),
        Scalar::I16 => (i16::MIN.into(), i16::MAX.into()),
        Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
        Scalar::I64 => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms"); `None` if there is no such day.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let last = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = *last.get(month.checked_sub(1)? as usize)?;
    if day == 0 || day > last {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Year, month and day of a day since 1970-01-01; the inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Literal {
    /// The text form: value and type, `0.05:decimal(2,2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, self.scalar) {
            (Value::Null, _) => write!(f, "null")?,
            (Value::Bool(b), _) => write!(f, "{b}")?,
            (Value::Int(i), Scalar::Decimal { scale, .. }) => {
                let digits = format!("{:0>width$}", i.unsigned_abs(), width = scale as usize + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
                let point = if scale > 0 { "." } else { "" };
                write!(f, "{}{whole}{point}{fraction}", if *i < 0 { "-" } else { "" })?;
            }
            (Value::Int(i), Scalar::Date) => {
                let (y, m, d) = civil_from_days(*i as i64);
                write!(f, "{y:04}-{m:02}-{d:02}")?;
            }
            (Value::Int(i), _) => write!(f, "{i}")?,
            (Value::Float(bits), _) => write!(f, "{:?}", f64::from_bits(*bits))?,
            (Value::Interval { months, days, micros }, _) => write!(f, "{months}m{days}d{micros}us")?,
            (Value::String(s), _) => write!(f, "{s:?}")?,
        }
        write!(f, ":{}", self.scalar)
    }
}
