//! The page in a real browser: on a phone, in light and dark, by keyboard, for screen readers.

use serde_json::Value;

use crate::boxes::Site;
use crate::broker::Broker;
use crate::browser::Browser;
use crate::harness::until;

/// The least contrast between the text and the ground of each of these, as WCAG reckons it.
const CONTRAST: &str = r##"
(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\d.]+/g).slice(0, 3).map((part) => {
      const share = Number(part) / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$|transparent/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const shown = [...document.querySelectorAll("#verdict, .pill, h2, .note, #figures dt, #figures dd, .name, .kind, .role, .what, .total")]
    .filter((element) => element.textContent.trim() && element.offsetParent);
  return Math.min(...shown.map((element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()"##;

fn url(site: &Site) -> String {
    format!("http://127.0.0.1:{}/", site.boxes[0].http)
}

#[test]
fn the_page_fits_a_phone_in_light_and_dark_and_shows_the_verdict_and_what_is_not_deliverable() {
    let broker = Broker::start_with_rules(&["tally/plant7/status", "tally/plant7/total/#"]);
    let mut site = Site::start_with(2, "1s", &broker.config());
    let long = format!("hall-3/{}/parts", "a-very-long-name-of-a-press".repeat(5));
    site.boxes[0].add(&long, 7);
    let leader = site.leader();
    let shown = format!("http://127.0.0.1:{}/", site.boxes[leader].http);
    let mut page = Browser::open(&shown, 360);
    page.until(
        "document.querySelector('#verdict').textContent === 'works; tolerates none: all 2 boxes are needed'",
    );
    page.until("document.querySelectorAll('#series li svg').length > 0");
    page.until("document.querySelector('#upstream-refused').textContent.includes('tally/plant7/summary/')");
    assert_eq!(page.value("document.querySelector('#refused-title').hidden"), false);
    let figures = page.value("document.querySelector('#figures').textContent");
    assert!(figures.as_str().unwrap().contains("Held back"), "{figures}");
    assert_eq!(page.value("document.documentElement.scrollWidth"), 360, "nothing sticks out on a phone");
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        let contrast = page.value(CONTRAST).as_f64().unwrap();
        assert!(contrast >= 4.5, "{scheme}: {contrast}");
        grounds.push(page.value("getComputedStyle(document.body).backgroundColor"));
        page.picture(&format!("phone-{scheme}"));
    }
    assert_ne!(grounds[0], grounds[1]);
    site.boxes[1 - leader].kill();
    page.until("document.querySelector('#verdict').textContent.startsWith('does NOT count: ')");
    assert_eq!(page.value("document.querySelector('#verdict').className"), "bad");
    page.picture("phone-stopped");
}

#[test]
fn the_page_is_used_by_keyboard_and_every_part_has_a_name_for_screen_readers() {
    let site = Site::start(1);
    site.boxes[0].add("line1/parts", 7);
    until("a window has closed", || {
        let windows = site.boxes[0].client().get("/v1/windows/line1/parts").ok()?.json();
        windows["windows"].as_array().is_some_and(|windows| !windows.is_empty()).then_some(())
    });
    let mut page = Browser::open(&url(&site), 1200);
    page.until("document.querySelectorAll('#series li svg').length === 1");
    let mut reached = Vec::new();
    for _ in 0..3 {
        page.press("Tab", 9, "");
        reached.push(page.value("document.activeElement.id || document.activeElement.className"));
        assert_ne!(
            page.value("getComputedStyle(document.activeElement).outlineStyle"),
            "none",
            "{reached:?}"
        );
    }
    assert_eq!(reached, ["skip", "windows", "filter"]);
    page.press("z", 90, "z");
    page.until("document.querySelector('#count').textContent === 'No series name begins with this'");
    page.press("Backspace", 8, "");
    page.until("document.querySelectorAll('#series li svg').length === 1");
    let spoken = page.spoken();
    for (role, name) in &spoken {
        let needs =
            ["searchbox", "textbox", "combobox", "button", "link", "image", "list", "region", "heading"];
        assert!(!needs.contains(&role.as_str()) || !name.is_empty(), "a {role} without a name: {spoken:#?}");
    }
    let named = |role: &str, name: &str| {
        assert!(spoken.iter().any(|(r, n)| r == role && n.starts_with(name)), "{role} {name}: {spoken:#?}");
    };
    named("combobox", "Windows in each plot");
    named("searchbox", "Names that begin with");
    named("image", "line1/parts: its latest ");
    named("list", "Boxes");
    let live = page.value("document.querySelector('#verdict').getAttribute('role')");
    assert_eq!(live, Value::from("status"));
    page.picture("desktop");
}
