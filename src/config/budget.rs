//! `upstream.budget`: rates, hours and the bytes of a day. What they do is the upstream side's business.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::upstream::{BudgetSettings, Calendar, Limit, Window};

use super::reader::{Fault, Parsed, Section};
use super::tree::Value;
use super::units::parse_rate;
use super::values;

/// More windows than any week has.
const WINDOWS: usize = 64;
/// What one stream needs to be of use to a Delivery Optimization agent, in bytes per second: less helps nobody.
const SLOWEST: u64 = 8_000;
const FASTEST: u64 = 1_000_000_000_000;
/// Least bytes of a day: less ends before anything is there.
const FEWEST: u64 = 1_000_000;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads the section. The rates of single sources stand with them.
pub(super) fn budget(section: &mut Section<'_>) -> Option<BudgetSettings> {
    let limit = section.value("rate", limit);
    let daily = section.value("daily", values::optional(values::size(FEWEST..=u64::MAX, "of 1 MB or more")));
    let zone = section.value("time_zone", zone);
    let windows = section.sections("windows", window);
    let windows = windows?;
    if windows.len() > WINDOWS {
        section.fault("windows", Fault::new("there are too many windows", format!("write up to {WINDOWS}")));
        return None;
    }
    let calendar = Calendar { zone: zone?, limit: limit?, windows };
    Some(BudgetSettings { calendar, daily: daily?, ..BudgetSettings::default() })
}

/// Bytes per second, for a source of its own.
pub(super) fn rate(value: &Value) -> Parsed<u64> {
    let remedy = "write a rate from 8 kB/s (64 kbit/s) to 1 TB/s, for example 2 MB/s or 20 Mbit/s";
    let (Value::Text(text) | Value::Number(text)) = value else {
        return Err(Fault::new("this is not a rate", remedy));
    };
    let rate = parse_rate(text).map_err(|error| Fault::new(format!("this is not a rate: {error}"), remedy))?;
    if (SLOWEST..=FASTEST).contains(&rate) { Ok(rate) } else { Err(Fault::new("this rate is not allowed", remedy)) }
}

fn limit(value: &Value) -> Parsed<Limit> {
    match value {
        Value::Null => Ok(Limit::None),
        Value::Text(word) if word == "closed" => Ok(Limit::Closed),
        value => rate(value)
            .map(Limit::Rate)
            .map_err(|fault| Fault { remedy: format!("{}; or null for no limit, or closed", fault.remedy), ..fault }),
    }
}

fn zone(value: &Value) -> Parsed<TimeZone> {
    let text = values::text(value)?;
    if text == "local" {
        return Ok(TimeZone::system());
    }
    TimeZone::get(text).map_err(|_| {
        let remedy =
            "write a name of the time zone database, for example Europe/Berlin; UTC; or local, as this machine has it";
        Fault::new("this time zone is not known", remedy)
    })
}

fn window(section: &mut Section<'_>) -> Option<Window> {
    let days = section.values("days", Some(&["mon-sun"]), days);
    let from = section.value_or("from", "00:00", time);
    let to = section.value_or("to", "24:00", |value| match value {
        Value::Text(text) if text == "24:00" => Ok(None),
        value => time(value).map(Some),
    });
    let limit = section.value_or("rate", Value::Null, limit);
    let (days, from, to) = (days?, from?, to?);
    if to == Some(from) {
        let remedy = "write 00:00 and 24:00 for whole days";
        section.fault("to", Fault::new("the window begins and ends at the same time", remedy));
        return None;
    }
    if days.is_empty() {
        section.fault("days", Fault::new("a window on no day does nothing", "name its days, or leave the window out"));
        return None;
    }
    let days = days.into_iter().fold([false; 7], |all, some| {
        let mut both = all;
        both.iter_mut().zip(some).for_each(|(day, is_one)| *day |= is_one);
        both
    });
    Some(Window { days, from, to, limit: limit? })
}

/// `mon`, or `mon-fri`; `sat-mon` goes over the end of the week.
fn days(value: &Value) -> Parsed<[bool; 7]> {
    let fault =
        || Fault::new("these are no days", format!("write some of {}, or a span like mon-fri", DAYS.join(", ")));
    let text = values::text(value)?.to_ascii_lowercase();
    let index = |name: &str| DAYS.iter().position(|day| *day == name.trim()).ok_or_else(fault);
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let (first, last) = (index(first)?, index(last)?);
    let count = (last + DAYS.len() - first) % DAYS.len();
    let mut days = [false; 7];
    for offset in 0..=count {
        days.iter_mut().skip((first + offset) % DAYS.len()).take(1).for_each(|day| *day = true);
    }
    Ok(days)
}

fn time(value: &Value) -> Parsed<Time> {
    let fault =
        || Fault::new("this is no time of day", "write it like \"06:00\", in quotes; 24:00 is the end of a day");
    let text = values::text(value).map_err(|_| fault())?;
    let is_plain = matches!(text.len(), 5 | 8) && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let time: Time = text.parse().map_err(|_| fault())?;
    if is_plain { Ok(time) } else { Err(fault()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn days_are_names_and_spans() {
        assert_eq!(days(&text("Mon")).unwrap(), [true, false, false, false, false, false, false]);
        assert_eq!(days(&text("mon-fri")).unwrap(), [true, true, true, true, true, false, false]);
        assert_eq!(days(&text("sat-mon")).unwrap(), [true, false, false, false, false, true, true]);
        for wrong in ["", "monday", "mon-", "-fri", "mon-fri-sat", "8"] {
            assert!(days(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_two_digits_each() {
        assert_eq!(time(&text("06:30")).unwrap(), Time::constant(6, 30, 0, 0));
        assert_eq!(time(&text("06:30:15")).unwrap(), Time::constant(6, 30, 15, 0));
        for wrong in ["6:30", "24:00", "06:60", "0630", "T06:30", "06:30 pm", "06:30:15.5"] {
            assert!(time(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_rates_or_words() {
        assert_eq!(limit(&Value::Null).unwrap(), Limit::None);
        assert_eq!(limit(&text("closed")).unwrap(), Limit::Closed);
        assert_eq!(limit(&text("2 MB/s")).unwrap(), Limit::Rate(2_000_000));
        assert_eq!(limit(&text("20 Mbit/s")).unwrap(), Limit::Rate(2_500_000));
        assert_eq!(limit(&text("64 kbit/s")).unwrap(), Limit::Rate(8_000));
        for wrong in ["0", "7 kB/s", "2 MB/h", "open", "2 TB/s"] {
            assert!(limit(&text(wrong)).is_err(), "{wrong}");
        }
    }
}
