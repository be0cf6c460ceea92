//! Paths that may be left out.

use std::path::PathBuf;

use super::UnitError;

/// Parses a path, or `off`.
///
/// # Errors
/// None: any other text is a path.
pub fn parse_path_or_off(text: &str) -> Result<Option<PathBuf>, UnitError> {
    Ok((text != "off").then(|| text.into()))
}
