//! Collects what is wrong in one file, so that all of it is said at once.

use crate::finding::{Finding, Severity};
use crate::yaml::{At, Place};

/// The findings of one file.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    path: &'a str,
    found: Vec<Finding>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(path: &'a str) -> Self {
        Self { path, found: Vec::new() }
    }

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.add(place, Severity::Error, message.into(), None);
    }

    pub(crate) fn error_with_hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(place, Severity::Error, message.into(), Some(hint.into()));
    }

    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>) {
        self.add(place, Severity::Warning, message.into(), None);
    }

    fn add(&mut self, place: Place, severity: Severity, message: String, hint: Option<String>) {
        let (line, column) = (place.line, place.column);
        self.found.push(Finding { path: self.path.to_owned(), line, column, severity, message, hint });
    }

    /// Parses the value with `parse`; what it says against it becomes an error at its place.
    pub(crate) fn take<T, E: ToString>(
        &mut self,
        text: &At<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(&text.value).map_err(|wrong| self.error(text.place, wrong.to_string())).ok()
    }

    /// Warnings, or everything where one of it is an error.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Finding>), Vec<Finding>> {
        match value {
            Some(value) if self.found.iter().all(|found| found.severity == Severity::Warning) => {
                Ok((value, self.found))
            }
            _ => Err(self.found),
        }
    }
}
