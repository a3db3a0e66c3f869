//! When a device may apply. Pure: the time comes in.

use fleet::desired::Window;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Whether every window is open at `now`. A device takes part in the windows
/// of all its groups; no window at all is always open. A window whose time
/// zone is not known is shut: the format's check refuses such zones.
#[must_use]
pub fn open(windows: &[Window], now: Timestamp) -> bool {
    windows.iter().all(|window| is_open(window, now).unwrap_or(false))
}

fn is_open(window: &Window, now: Timestamp) -> Option<bool> {
    let zone = TimeZone::get(&window.tz).ok()?;
    let today = now.to_zoned(zone.clone()).date();
    // A span may cross midnight, and more than one of them.
    let reach = i64::from(window.for_minutes / (24 * 60)) + 1;
    for back in 0..=reach {
        let day = today.checked_sub(Span::new().try_days(back).ok()?).ok()?;
        if let Some((from, to)) = span(window, day, &zone)
            && from <= now
            && now < to
        {
            return Some(true);
        }
    }
    Some(false)
}

/// The span that starts on `day`, if one does.
fn span(window: &Window, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let weekday = u8::try_from(day.weekday().to_monday_zero_offset()).ok()?;
    if !window.days.contains(&weekday) {
        return None;
    }
    let (hour, minute) = (window.from_minute / 60, window.from_minute % 60);
    let start = day.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
    let from = zone.to_ambiguous_zoned(start).compatible().ok()?.timestamp();
    let to = from.checked_add(Span::new().try_minutes(i64::from(window.for_minutes)).ok()?).ok()?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use fleet::desired::Window;

    use super::open;

    fn window(days: &[u8], from_minute: u16, for_minutes: u32, tz: &str) -> Window {
        Window { days: days.to_vec(), from_minute, for_minutes, tz: tz.into() }
    }

    #[test]
    fn windows() {
        // 2026-11-23 is a Monday.
        let night = window(&[0, 1, 2, 3], 120, 120, "Europe/Berlin");
        let late = window(&[6], 23 * 60, 180, "UTC");
        let spring = window(&[6], 150, 60, "Europe/Berlin");
        let nowhere = window(&[0], 0, 1440, "Mars/Olympus");
        let cases = [
            ("no window is open", vec![], "2026-11-23T12:00:00Z", true),
            ("inside", vec![night.clone()], "2026-11-23T01:30:00Z", true),
            ("its first moment", vec![night.clone()], "2026-11-23T01:00:00Z", true),
            ("its end is outside", vec![night.clone()], "2026-11-23T03:00:00Z", false),
            ("another day", vec![night.clone()], "2026-11-27T01:30:00Z", false),
            ("summer time", vec![night.clone()], "2026-07-06T00:30:00Z", true),
            ("across midnight", vec![late.clone()], "2026-11-23T01:30:00Z", true),
            ("all of them", vec![late, night], "2026-11-22T23:30:00Z", false),
            ("a time that a clock change skips", vec![spring], "2026-03-29T01:45:00Z", true),
            ("an unknown zone is shut", vec![nowhere], "2026-11-23T12:00:00Z", false),
        ];
        for (name, windows, now, want) in cases {
            let Ok(now) = now.parse() else { unreachable!("{now}") };
            assert_eq!(open(&windows, now), want, "{name}");
        }
    }
}
