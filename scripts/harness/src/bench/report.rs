//! Tables for the terminal and for the documentation.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

/// One table: a title, columns, rows, and what a reader has to know.
#[derive(Debug, Clone, Default)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// With these columns; the first names the rows.
    #[must_use]
    pub(super) fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The table with its columns aligned, its title above and its notes below.
    #[must_use]
    pub fn text(&self) -> String {
        format!("\n{}\n\n{}{}", self.title, self.grid(), self.footer("  "))
    }

    fn grid(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                let cells =
                    self.rows.iter().filter_map(|row| row.get(index)).chain(&self.columns[index..=index]);
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                // Figures end in line; the first column and free text begin in line.
                let is_text = index == 0 || *width > 24;
                let _ = if is_text { write!(line, "{cell}{pad}  ") } else { write!(line, "{pad}{cell}  ") };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn footer(&self, indent: &str) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "{indent}{note}");
        }
        text
    }
}

/// A whole run.
pub struct Report {
    /// What it ran on.
    pub machine: Vec<(String, String)>,
    /// What was measured.
    pub tables: Vec<Table>,
}

const BEGIN: &str = "<!-- measured: written by scripts/bench --write -->";
const END: &str = "<!-- end of what is measured -->";
const HEAD: &str = "# Performance\n\n";

impl Report {
    pub(super) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, tables: Vec::new() }
    }

    /// The measured part of the page.
    fn markdown(&self, command: &str) -> String {
        let mut text = format!("{BEGIN}\n\nMeasured with `{command}` on:\n\n```text\n");
        let width = self.machine.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.machine {
            let _ = writeln!(text, "{name:width$}  {value}");
        }
        text.push_str("```\n");
        for table in &self.tables {
            let _ = write!(text, "\n### {}\n\n```text\n{}```\n", table.title, table.grid());
            for note in &table.notes {
                let _ = write!(text, "\n{note}\n");
            }
        }
        let _ = write!(text, "\n{END}");
        text
    }

    /// Puts the measured part into the page and leaves what people wrote around it alone.
    ///
    /// # Errors
    /// The page cannot be read or written, or has lost its marks.
    pub fn write(&self, page: &Path, command: &str) -> Result<()> {
        let old = match fs::read_to_string(page) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{HEAD}{BEGIN}{END}\n"),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", page.display())),
        };
        let lost = || format!("{} has lost its marks: {BEGIN} and {END}", page.display());
        let (before, rest) = old.split_once(BEGIN).with_context(lost)?;
        let (_, after) = rest.split_once(END).with_context(lost)?;
        if let Some(folder) = page.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(page, format!("{before}{}{after}", self.markdown(command)))
            .with_context(|| format!("cannot write {}", page.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn what_people_wrote_stays() {
        let folder = Folder::new("report").unwrap();
        let page = folder.path().join("docs/page.md");
        let mut report = Report::new(vec![("date".to_owned(), "today".to_owned())]);
        report.write(&page, "first").unwrap();
        let written = fs::read_to_string(&page).unwrap();
        fs::write(&page, format!("above\n{written}below\n")).unwrap();
        let mut table = Table::new("Numbers", &["what", "how many"]);
        table.row(["apples".to_owned(), "3".to_owned()]);
        report.tables.push(table);
        report.write(&page, "second").unwrap();
        let written = fs::read_to_string(&page).unwrap();
        assert!(written.starts_with("above\n# Performance") && written.ends_with("below\n"), "{written}");
        assert!(written.contains("`second`") && !written.contains("`first`"), "{written}");
        assert!(written.contains("what    how many\napples         3\n"), "{written}");
    }
}
