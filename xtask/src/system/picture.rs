//! Pictures of what a terminal shows, as SVG: the text itself, in the colours of its words. It has no program in it and no fonts.

/// Of one character, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: usize = 18;
const MARGIN: usize = 14;
/// Words at the beginning of a line, with their colours.
const FINDINGS: [(&str, &str); 3] = [("ok ", "#7ec87e"), ("look ", "#e5c07b"), ("wrong ", "#ff7b72")];
/// What `top` says of the site, wherever it stands.
const SENTENCES: [(&str, &str); 3] =
    [("works; tolerates none", "#e5c07b"), ("works; tolerates ", "#7ec87e"), ("does NOT count", "#ff7b72")];

/// A terminal in which a command has printed a text.
pub(super) fn of_terminal(command: &str, text: &str) -> String {
    let prompt = format!("$ {command}");
    let lines: Vec<&str> = std::iter::once(prompt.as_str()).chain(text.lines()).collect();
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let width = (columns as f64 * WIDTH).ceil() as usize + 2 * MARGIN;
    let height = lines.len() * HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\">\n<title>{0}</title>\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1d2127\"/>\n\
         <g font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"14\" fill=\"#d7dae0\">\n",
        escaped(command)
    );
    for (place, line) in lines.iter().enumerate() {
        let y = MARGIN + place * HEIGHT + HEIGHT * 3 / 4;
        svg.push_str(&format!("<text x=\"{MARGIN}\" y=\"{y}\">{}</text>\n", coloured(line)));
    }
    svg + "</g>\n</svg>\n"
}

fn coloured(line: &str) -> String {
    if let Some((_, rest)) = line.split_once("$ ").filter(|(before, _)| before.is_empty()) {
        return format!(
            "<tspan fill=\"#8b949e\">$ </tspan><tspan font-weight=\"bold\">{}</tspan>",
            escaped(rest)
        );
    }
    let finding = FINDINGS.iter().find(|(word, _)| line.starts_with(word)).map(|found| (0, found));
    let sentence = || SENTENCES.iter().find_map(|found| Some((line.find(found.0)?, found)));
    match finding.or_else(sentence) {
        Some((at, (words, colour))) => format!(
            "{}<tspan fill=\"{colour}\">{}</tspan>{}",
            escaped(&line[..at]),
            escaped(words),
            escaped(&line[at + words.len()..])
        ),
        None => escaped(line),
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    // Columns stay where they are in every viewer: other spaces are drawn as one.
    text.replace(' ', "\u{a0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_there_and_nothing_in_it_is_taken_for_markup() {
        let svg = of_terminal("tallyd doctor", "ok     space  1 < 2 & \"3\"\nwrong  broker  <script>\n");
        assert_eq!(svg.matches("<text ").count(), 3);
        let svg = svg.replace('\u{a0}', " ");
        assert!(
            svg.contains("<tspan fill=\"#7ec87e\">ok </tspan>    space  1 &lt; 2 &amp; &quot;3&quot;"),
            "{svg}"
        );
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
    }
}
