//! Makes a snippet safe to be shown as HTML: everything that was in the text is escaped, and only the database's marks,
//! which no text can contain, become tags.

/// What the database puts around a match.
const MARKS: (char, char) = ('\u{2}', '\u{3}');

/// The snippet as clients get it.
pub(super) fn safe(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len() + 32);
    let mut open = false;
    for letter in raw.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            letter if letter == MARKS.0 && !open => {
                open = true;
                text.push_str("<mark>");
            }
            letter if letter == MARKS.1 && open => {
                open = false;
                text.push_str("</mark>");
            }
            letter if letter == MARKS.0 || letter == MARKS.1 => {}
            letter => text.push(letter),
        }
    }
    if open {
        text.push_str("</mark>");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_become_tags() {
        for (raw, shown) in [
            ("a \u{2}b\u{3} c", "a <mark>b</mark> c"),
            ("<script>\u{2}x\u{3}</script>", "&lt;script&gt;<mark>x</mark>&lt;/script&gt;"),
            ("<mark>&\"'", "&lt;mark&gt;&amp;&quot;&#39;"),
            ("\u{3}a\u{2}b\u{2}c", "a<mark>bc</mark>"),
        ] {
            assert_eq!(safe(raw), shown);
        }
    }
}
