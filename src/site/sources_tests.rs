use super::*;
use crate::site::view::Refusal;
use tally_core::window::Span;

const DAY: u64 = 86_400_000;

struct Bench {
    sources: Sources,
    settings: Settings,
    now: Elapsed,
}

impl Bench {
    fn new(changes: &[(&str, &str)]) -> Bench {
        let mut settings = Settings::new(Span::DEFAULT);
        for (key, value) in changes {
            settings.set(key, value, 0).unwrap();
        }
        Bench { sources: Sources::default(), settings, now: Elapsed(5) }
    }

    fn open(&mut self, name: &str, nonce: u128) -> Result<(SourceId, Epoch), OpenRefused> {
        let epoch = Epoch(nonce as u64 + 1000);
        self.sources.open(SourceKind::Named, name, nonce, epoch, self.now, &self.settings)
    }

    fn judged(&self, (source, epoch): (SourceId, Epoch), number: u64) -> String {
        format!("{:?}", self.sources.judge(source, epoch, ReportNumber::new(number).unwrap(), number))
    }

    fn advance(&mut self, (source, epoch): (SourceId, Epoch), number: u64, refused: Refused) {
        let numbered = (ReportNumber::new(number).unwrap(), number);
        self.sources.advance(source, epoch, numbered, refused, self.now);
    }

    fn age(&mut self) {
        self.sources.age(self.now, &self.settings);
    }
}

const UNKNOWN: &str = "Unknown(Unknown)";

#[test]
fn the_same_nonce_gets_the_same_epoch() {
    let mut bench = Bench::new(&[]);
    let first = bench.open("a", 1).unwrap();
    bench.advance(first, 1, Refused::None);
    assert_eq!(bench.open("a", 1), Ok(first));
    assert!(bench.judged(first, 1).starts_with("Repeated"));
    let second = bench.open("a", 2).unwrap();
    assert_eq!((second.0, second.1 != first.1), (first.0, true));
    assert_ne!(bench.open("b", 1).unwrap().0, first.0);
}

#[test]
fn an_epoch_that_another_nonce_has_is_not_given_twice() {
    let mut bench = Bench::new(&[]);
    let mut open = |nonce| {
        let (now, settings) = (bench.now, &bench.settings);
        bench.sources.open(SourceKind::Box, "a", nonce, Epoch(7), now, settings).unwrap().1
    };
    let (a, b) = (open(1), open(2));
    assert_eq!(a, Epoch(7));
    assert_ne!(b, a);
    assert_eq!((open(1), open(2)), (a, b));
}

#[test]
fn boxes_and_named_sources_do_not_share_names() {
    let mut bench = Bench::new(&[]);
    let named = bench.open("a", 1).unwrap().0;
    let (now, settings) = (bench.now, &bench.settings);
    let of_box = bench.sources.open(SourceKind::Box, "a", 1, Epoch(1), now, settings).unwrap().0;
    assert_ne!(named, of_box);
    assert_eq!(bench.sources.find(SourceKind::Named, "a"), Some(named));
    assert_eq!(bench.sources.find(SourceKind::Box, "a"), Some(of_box));
    assert_eq!(bench.sources.name(of_box), Some((SourceKind::Box, "a")));
}

#[test]
fn the_latest_four_epochs_take_reports() {
    let mut bench = Bench::new(&[]);
    let opened: Vec<_> = (0..5).map(|nonce| bench.open("a", nonce).unwrap()).collect();
    assert_eq!(bench.judged(opened[0], 1), UNKNOWN);
    for epoch in &opened[1..] {
        assert_eq!(bench.judged(*epoch, 1), "Next");
        assert_eq!(bench.judged(*epoch, 2), "OutOfOrder(None)");
    }
    let epochs: Vec<Epoch> = bench.sources.epochs_of(opened[0].0).iter().map(|(epoch, _)| *epoch).collect();
    assert!(epochs.iter().eq(opened[1..].iter().map(|(_, epoch)| epoch)));
}

#[test]
fn a_silent_source_is_folded_and_later_forgotten() {
    let mut bench = Bench::new(&[]);
    let (a, b) = (bench.open("a", 1).unwrap(), bench.open("b", 2).unwrap());
    bench.advance(a, 1, Refused::None);
    bench.now.0 += 29 * DAY;
    bench.advance(b, 1, Refused::None);
    bench.now.0 += DAY;
    bench.age();
    assert_eq!(bench.judged(a, 2), "Unknown(Number(ReportNumber(1)))");
    assert_eq!(bench.judged(b, 2), "Next");
    assert!(bench.sources.epochs_of(a.0).is_empty());
    // A new epoch keeps the memory of the old one, which stays closed; its nonce is forgotten.
    let again = bench.open("a", 1).unwrap();
    assert_eq!(again.0, a.0);
    assert_ne!(again.1, a.1);
    assert_eq!(bench.judged(again, 1), "Next");
    assert_eq!(bench.judged(a, 2), "Unknown(Number(ReportNumber(1)))");
    for _ in 0..10 {
        bench.now.0 += 31 * DAY;
        bench.advance(again, 1, Refused::None);
        bench.age();
    }
    assert_eq!(bench.sources.len(), 2);
    bench.now.0 += 130 * DAY;
    bench.age();
    assert_eq!(bench.sources.find(SourceKind::Named, "b"), None);
    assert_eq!(bench.judged(b, 2), UNKNOWN);
    assert!(bench.sources.find(SourceKind::Named, "a").is_some());
    // An id is not given again.
    assert!(bench.open("b", 9).unwrap().0 > again.0);
}

#[test]
fn a_full_site_takes_no_more_sources_unless_one_is_folded() {
    let mut bench = Bench::new(&[("sources.max", "2")]);
    let a = bench.open("a", 1).unwrap();
    bench.open("b", 1).unwrap();
    assert_eq!(bench.open("c", 1), Err(OpenRefused::TooManySources));
    assert!(bench.open("a", 2).is_ok());
    bench.now.0 += 30 * DAY;
    bench.age();
    bench.open("b", 2).unwrap();
    assert!(bench.open("c", 1).is_ok());
    assert_eq!(bench.judged(a, 1), UNKNOWN);
    assert_eq!(bench.sources.len(), 2);
}

#[test]
fn a_name_that_is_none_opens_nothing() {
    let mut bench = Bench::new(&[]);
    for name in ["", "a\nb", &"x".repeat(97)] {
        assert_eq!(bench.open(name, 1), Err(OpenRefused::BadName));
    }
    assert!(bench.open(&"x".repeat(96), 1).is_ok());
}

#[test]
fn lists_of_refused_cells_are_bounded_together() {
    let mut bench = Bench::new(&[]);
    // No two neighbours alike: the longest list there can be.
    let cells: Vec<_> = (0..65_536u32)
        .map(|place| (place, if place % 2 == 0 { Refusal::Overflow } else { Refusal::Malformed }))
        .collect();
    let list = Refused::new(&cells);
    let mut dropped = 0;
    for nonce in 0..30 {
        let source = bench.open(&format!("s{nonce}"), nonce).unwrap();
        bench.advance(source, 1, list.clone());
        dropped += usize::from(bench.judged(source, 1) == "Repeated(Dropped)");
        assert!(bench.sources.refused_bytes <= REFUSED_BYTES_MAX);
    }
    assert_eq!(dropped, 30 - REFUSED_BYTES_MAX / list.bytes());
    // The next report of one makes room again.
    let first = bench.open("s0", 0).unwrap();
    bench.advance(first, 2, Refused::None);
    let last = bench.open("s29", 29).unwrap();
    bench.advance(last, 2, list);
    assert_ne!(bench.judged(last, 2), "Repeated(Dropped)");
}

#[test]
fn ageing_does_bounded_work_at_a_time() {
    let mut bench = Bench::new(&[]);
    for n in 0..200 {
        bench.open(&format!("s{n}"), n).unwrap();
    }
    bench.now.0 += 30 * DAY;
    bench.age();
    assert_eq!((bench.sources.live.len(), bench.sources.folded.len()), (200 - AGED_MAX, AGED_MAX));
}

#[test]
fn a_folded_source_gives_the_room_of_its_lists_back() {
    let mut bench = Bench::new(&[]);
    let source = bench.open("a", 1).unwrap();
    bench.advance(source, 1, Refused::new(&[(3, Refusal::Overflow)]));
    assert!(bench.sources.refused_bytes > 0);
    bench.now.0 += 30 * DAY;
    bench.age();
    assert_eq!(bench.sources.refused_bytes, 0);
    for nonce in 2..9 {
        bench.open("a", nonce).unwrap();
    }
    assert_eq!(bench.sources.refused_bytes, 0);
}

#[test]
fn an_epoch_that_was_folded_before_its_first_report_is_known_and_has_none_applied() {
    let mut bench = Bench::new(&[]);
    let idle = bench.open("standby", 1).unwrap();
    bench.now.0 += 30 * DAY;
    bench.age();
    assert_eq!(bench.judged(idle, 1), "Unknown(None)", "its first report was certainly not applied");
    assert_eq!(bench.judged((idle.0, Epoch(99)), 1), UNKNOWN);
    assert!(!LastApplied::None.may_include(ReportNumber::FIRST));
    assert!(LastApplied::Unknown.may_include(ReportNumber::FIRST));
}

#[test]
fn a_folded_box_is_not_forgotten_for_a_named_source() {
    let mut bench = Bench::new(&[("sources.max", "2")]);
    bench.sources.level = Level::TWO;
    let (now, settings) = (bench.now, &bench.settings);
    let idle = bench.sources.open(SourceKind::Box, "a", 1, Epoch(7), now, settings).unwrap();
    bench.open("b", 1).unwrap();
    bench.now = Elapsed(31 * DAY);
    bench.age();
    bench.open("c", 1).unwrap();
    assert_eq!(bench.judged(idle, 1), "Unknown(None)", "it has counted nothing yet, and the site knows");
    assert!(bench.sources.find(SourceKind::Named, "b").is_none(), "the named one had to go");
    assert_eq!(bench.open("d", 1), Err(OpenRefused::TooManySources));
}
