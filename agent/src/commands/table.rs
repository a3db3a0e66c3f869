//! Columns that line up, and colour where a person looks.

/// Colours words, or leaves them plain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// In colour where `terminal`, unless `$NO_COLOR` says no.
    pub(super) fn on(terminal: bool) -> Self {
        Self { on: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { on: false }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn red(&self, text: &str) -> String {
        self.with("31", text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    /// A state's word in the colour of what it means.
    pub(super) fn state(&self, word: &str) -> String {
        match word.trim_end() {
            "healthy" | "synced" | "steady" | "up" | "ok" => self.green(word),
            "degraded" | "missing" | "stalled" | "rolling-back" | "down" | "fail" | "out-of-sync" => self.red(word),
            "progressing" | "updating" | "preparing" | "held" | "applying" | "probing" | "starting" | "suspended"
            | "warn" => self.yellow(word),
            _ => word.to_owned(),
        }
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Rows of text under headings. The last column may have several lines.
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        // What others wrote must not steer the terminal.
        let clean = |cell: String| cell.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        self.rows.push(cells.map(clean));
    }

    /// Nothing at all where there is no row.
    pub(super) fn show(&self, paint: &Paint) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let last = N - 1;
        let mut widths = self.head.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let before: usize = widths[..last].iter().map(|width| width + 2).sum();
        let mut line = |cells: [&str; N], colour: &dyn Fn(&str) -> String| {
            let mut row = String::new();
            for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
                if place < last {
                    row.push_str(&colour(&format!("{cell:width$}")));
                    row.push_str("  ");
                } else {
                    row.push_str(&cell.replace('\n', &format!("\n{}", " ".repeat(before))));
                }
            }
            text.push_str(row.trim_end());
            text.push('\n');
        };
        line(self.head, &|word| paint.dim(word));
        for row in &self.rows {
            line(row.each_ref().map(String::as_str), &|word| paint.state(word));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Paint, Table};

    #[test]
    fn columns_line_up_and_lines_hang() {
        let mut table = Table::new(["APP", "HEALTH", "MESSAGE"]);
        table.row(["pos".into(), "degraded".into(), "exited 1\nhint: see \u{1b}[31mlogs".into()]);
        table.row(["a-longer-one".into(), "healthy".into(), String::new()]);
        let want = "APP           HEALTH    MESSAGE\n\
                    pos           degraded  exited 1\n                        hint: see [31mlogs\n\
                    a-longer-one  healthy\n";
        assert_eq!(table.show(&Paint::plain()), want);
        assert_eq!(Table::new(["A"]).show(&Paint::plain()), "");
    }
}
