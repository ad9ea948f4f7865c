//! Words and phrases: how a message is cut into words, and how a rule's pattern fits them.
//!
//! A pattern is a line of elements. `a|b_c` is one of the phrases, `[a|b]` the same or nothing, `<name>` any words, as
//! few as will do. A `:` at the end of an element wants a colon in the text there.

use std::ops::Range;

/// A word as it is compared, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Lower case, without punctuation around it.
    pub(super) plain: String,
    /// Whether a colon follows.
    pub(super) colon: bool,
    start: usize,
    end: usize,
}

/// A text and its words.
#[derive(Debug, Clone)]
pub(super) struct Words<'a> {
    text: &'a str,
    words: Vec<Word>,
}

/// Punctuation that may surround a word without being part of it.
const AROUND: &[char] = &['"', '\'', '“', '”', '‘', '’', '`', ',', '.', '!', '?', ';', ':', '(', ')', '*'];

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut words = Vec::new();
        for part in text.split_whitespace() {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            let plain = part.trim_matches(AROUND).to_lowercase().replace('’', "'");
            if plain.is_empty() {
                // A lone dash or colon belongs to the word before it.
                if part.contains(':')
                    && let Some(last) = words.last_mut()
                {
                    let last: &mut Word = last;
                    last.colon = true;
                }
                continue;
            }
            let colon = part.trim_end_matches(['"', '*']).ends_with(':');
            words.push(Word { plain, colon, start, end: start + part.len() });
        }
        Self { text, words }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&str> {
        self.words.get(at).map(|word| word.plain.as_str())
    }

    pub(super) fn plain(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| word.plain.as_str())
    }

    pub(super) fn has(&self, wanted: &[&str]) -> bool {
        self.plain().any(|word| wanted.contains(&word))
    }

    /// Whether the words contain this phrase.
    pub(super) fn has_phrase(&self, phrase: &str) -> bool {
        (0..self.len()).any(|at| self.phrase_at(phrase, at, ' ').is_some())
    }

    /// The words as they were written, without quotes and loose punctuation around them.
    pub(super) fn slice(&self, range: Range<usize>) -> &'a str {
        let Some(words) = self.words.get(range) else { return "" };
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return "" };
        tidy(&self.text[first.start..last.end])
    }

    /// The text without the words of the range.
    pub(super) fn without(&self, range: &Range<usize>) -> String {
        let (before, after) = (self.slice(0..range.start), self.slice(range.end..self.len()));
        format!("{before} {after}").trim().to_owned()
    }

    /// Where the phrase ends if it begins at `at`.
    fn phrase_at(&self, phrase: &str, at: usize, gap: char) -> Option<usize> {
        let mut next = at;
        for word in phrase.split(gap) {
            if self.get(next)? != word {
                return None;
            }
            next += 1;
        }
        Some(next)
    }

    /// What the pattern's names stand for, if it fits all the words.
    pub(super) fn fit<'p>(&self, pattern: &'p str) -> Option<Fit<'p, 'a>> {
        let elements: Vec<&str> = pattern.split_whitespace().collect();
        let mut found = Vec::new();
        self.fit_from(&elements, 0, &mut found).then(|| Fit {
            found: found.into_iter().map(|(name, range)| (name, self.slice(range))).collect(),
        })
    }

    fn fit_from<'p>(
        &self,
        elements: &[&'p str],
        at: usize,
        found: &mut Vec<(&'p str, Range<usize>)>,
    ) -> bool {
        let Some((first, rest)) = elements.split_first() else { return at == self.len() };
        if let Some(name) = first.strip_prefix('<').and_then(|name| name.strip_suffix('>')) {
            let (name, colon) = match name.strip_suffix(':') {
                Some(name) => (name, true),
                None => (name, false),
            };
            for end in at + 1..=self.len() {
                if colon && !self.words[end - 1].colon {
                    continue;
                }
                found.push((name, at..end));
                if self.fit_from(rest, end, found) {
                    return true;
                }
                found.pop();
            }
            return false;
        }
        let optional = first.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let phrases = optional.unwrap_or(first);
        let (phrases, colon) = match phrases.strip_suffix(':') {
            Some(phrases) => (phrases, true),
            None => (phrases, false),
        };
        for phrase in phrases.split('|') {
            if let Some(end) = self.phrase_at(phrase, at, '_')
                && (!colon || self.words[end - 1].colon)
                && self.fit_from(rest, end, found)
            {
                return true;
            }
        }
        optional.is_some() && self.fit_from(rest, at, found)
    }
}

/// What a pattern's names stand for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit<'p, 'a> {
    found: Vec<(&'p str, &'a str)>,
}

impl<'a> Fit<'_, 'a> {
    /// The words of that name, empty if the pattern has none.
    pub(super) fn get(&self, name: &str) -> &'a str {
        self.found.iter().find(|(found, _)| *found == name).map_or("", |(_, text)| text)
    }
}

/// Without white space, quotes and loose punctuation around it.
pub(super) fn tidy(text: &str) -> &str {
    let text =
        text.trim().trim_end_matches(['.', '!', '?', ',', ';', ':']).trim_start_matches([',', ':', '-']);
    let text = text.trim();
    for quote in [('"', '"'), ('“', '”'), ('\'', '\''), ('‘', '’'), ('`', '`')] {
        if let Some(inner) = text.strip_prefix(quote.0).and_then(|text| text.strip_suffix(quote.1)) {
            return inner.trim();
        }
    }
    text
}

/// With its first letter in upper case.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        let words = Words::new("Add a task: “Buy milk, please”!");
        let fit = words.fit("add|create [a|the] task: <title>").unwrap();
        assert_eq!(fit.get("title"), "Buy milk, please");
        assert_eq!(fit.get("other"), "");
        assert!(words.fit("add a: task <title>").is_none());
        let words = Words::new("get rid of the second one");
        assert_eq!(words.fit("delete|get_rid_of <what>").unwrap().get("what"), "the second one");
        let words = Words::new("rename wifi: to Net to go");
        assert_eq!(words.fit("rename <a> to <b>").unwrap().get("b"), "Net to go");
        assert_eq!(words.fit("rename <a:> to <b>").unwrap().get("a"), "wifi");
    }
}
