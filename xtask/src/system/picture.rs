//! Pictures of what a terminal shows, as SVG: the text itself, in the colours of its words. It has no program in it and no fonts.

/// Of one character, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: usize = 18;
const MARGIN: usize = 14;
/// Words that begin a line, with their colours; in `top` the sentence about the site.
const COLOURS: [(&str, &str); 4] =
    [("ok ", "#7ec87e"), ("look ", "#e5c07b"), ("wrong ", "#ff7b72"), ("works; tolerates none", "#e5c07b")];

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
         <g font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"14\" fill=\"#d7dae0\" \
         xml:space=\"preserve\">\n",
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
    match COLOURS.iter().find(|(word, _)| line.starts_with(word)) {
        Some((word, colour)) => {
            format!("<tspan fill=\"{colour}\">{}</tspan>{}", escaped(word), escaped(&line[word.len()..]))
        }
        None => escaped(line),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_there_and_nothing_in_it_is_taken_for_markup() {
        let svg = of_terminal("tallyd doctor", "ok     space  1 < 2 & \"3\"\nwrong  broker  <script>\n");
        assert_eq!(svg.matches("<text ").count(), 3);
        assert!(
            svg.contains("<tspan fill=\"#7ec87e\">ok </tspan>    space  1 &lt; 2 &amp; &quot;3&quot;"),
            "{svg}"
        );
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
    }
}
