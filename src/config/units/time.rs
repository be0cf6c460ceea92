//! Durations.

use std::time::Duration;

use super::UnitError;

/// Parses a duration in humantime's syntax.
///
/// # Errors
/// [`UnitError::Duration`]: a unit is needed, except for a bare `0`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text).map_err(|_| UnitError::Duration { text: text.to_owned() })
}
