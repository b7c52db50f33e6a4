//! Entries of the log, applied to a site one after the other: bodies of any bytes after stamps of any bytes.

use tally_core::id::{Epoch, KeyHash, NodeId, ReportNumber, SeriesName, SourceId};
use tally_core::meter::MeterRule;
use tally_core::raft::MemberRole;
use tally_core::report::{Amount, Kind, Sample};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tallyd::site::{
    Body, BootstrapSettings, ConfigurationRecord, JoinRequest, KeyedAdd, MemberChange, MemberRecord,
    NewToken, Part, ReportWriter, SeriesRef, Site, SiteKey, SourceKind, Stamp, StampedEntry, TokenChange,
    TokenId, entry, readdress,
};

use crate::input::{Input, put_part};

/// Applying is bounded by what an entry has; more of them teach a fuzzer nothing.
const ENTRIES_MAX: usize = 64;

pub(crate) fn founding() -> BootstrapSettings {
    BootstrapSettings {
        site: "fuzz".to_owned(),
        site_id: 0x9f3c_51d2_a07b_e644,
        base_span: Span::DEFAULT,
        level: tallyd::site::Level::MAX,
    }
}

pub(crate) fn run(bytes: &[u8]) {
    apply(bytes);
}

/// The site that the entries make; two replicas come to the same, and so does one that is restored between them.
pub(crate) fn apply(bytes: &[u8]) -> Site {
    let mut input = Input::new(bytes);
    let (mut site, mut other) = (Site::new(&founding()), Site::new(&founding()));
    for number in 0..ENTRIES_MAX {
        if input.is_empty() {
            break;
        }
        let payload = input.part();
        look_at(payload);
        let entry = &StampedEntry::from(payload);
        let index = site.applied().next();
        let before = (site.digest(), site.stamp());
        match site.apply(index, entry) {
            Ok(applied) => {
                assert_eq!(site.applied(), index);
                assert_eq!(other.apply(index, entry).as_ref(), Ok(&applied), "two replicas differ");
            }
            Err(error) => {
                assert_eq!((site.digest(), site.stamp(), site.applied().next()), (before.0, before.1, index));
                assert_eq!(other.apply(index, entry), Err(error), "two replicas differ");
            }
        }
        assert_eq!(site.digest(), other.digest(), "two replicas differ");
        if number % 8 == 3 {
            other = Site::restore(&founding(), &other.snapshot()).expect("its own snapshot");
        }
    }
    assert_eq!(site.snapshot(), other.snapshot(), "two replicas differ");
    look_around(&site);
    site
}

/// What is asked of payloads and bodies without applying them.
fn look_at(payload: &[u8]) {
    let _ = entry::configuration_of(&payload.into());
    let _ = Site::new(&founding()).members_to_come(Vec::new(), std::iter::once(payload.into()));
    if entry::check(payload).is_ok() {
        let _ = readdress(payload, SourceId(7), Epoch(9), ReportNumber::FIRST);
    }
}

/// Everything that reads a site.
fn look_around(site: &Site) {
    let _ = (site.close_due(SiteTime(u64::MAX)), site.changed_since(tally_core::id::LogIndex::ZERO, ""));
    for view in site.page("", None, 16) {
        let _ = (site.windows(view.id, 10), site.series_total(view.id));
    }
    let _ = (site.held_jumps(10), site.meters_len());
    let _ = (site.numbered(0, 10), site.closed_after(0, ""), site.members(), site.configuration());
    let _ = (site.tokens().len(), site.patient_members().count(), site.replacements().count());
}

/// Entries as boxes write them.
pub(crate) fn bodies() -> Vec<Body> {
    let name = |text: &'static str| SeriesName::new(text).expect("a name");
    let window = SiteTime(1_700_000_040_000 / 60_000 * 60_000);
    let sample = Sample::observed(21.5, window, SourceId(1)).expect("a value");
    let mut report = ReportWriter::new(SourceId(1), Epoch(77), ReportNumber::FIRST, 0);
    report.cell(SeriesRef::Name(name("line1/parts"), Kind::Counter), window, &Amount::Counter(5));
    report.cell(SeriesRef::Name(name("tank"), Kind::Updown), window, &Amount::Updown { up: 3, down: 1 });
    report.cell(SeriesRef::Name(name("oven"), Kind::Sample), window, &Amount::Sample(sample));
    report.keyed(&KeyedAdd {
        series: SeriesRef::Name(name("line1/parts"), Kind::Counter),
        window,
        amount: Amount::Counter(1),
        key: 42,
        check: 7,
        taken: Elapsed(1000),
    });
    let reading = |value, heard, incarnation, rule| entry::ReadingCell {
        series: SeriesRef::Name(name("energy"), Kind::Counter),
        meter: "e1",
        value,
        heard: SiteTime(heard),
        incarnation,
        rule,
    };
    let rule =
        MeterRule { ceiling: Some(1 << 32), noise: Some(5), glitch_window_ms: 500, step_max: Some(1000) };
    for (place, value) in (0..).zip([100, 105, 0, 7, 5_000]) {
        report.reading(&reading(value, window.0 + place * 300, 0, MeterRule::DEFAULT), window);
        report.reading(&entry::ReadingCell { meter: "e2", ..reading(value, window.0, 9, rule) }, window);
    }
    let next = ReportNumber::FIRST.next();
    let mut second = ReportWriter::new(SourceId(1), Epoch(77), next, 0);
    let known = tallyd::site::SeriesId(0);
    second.cell(SeriesRef::Id(known), SiteTime(0), &Amount::Counter(2));
    let mut signed = ReportWriter::new(SourceId(1), Epoch(77), next.next(), 0);
    signed.signed(SeriesRef::Name(name("tank"), Kind::Updown), window, -3);
    signed.signed(SeriesRef::Id(known), window, 3);
    let record = |id: u64, role| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        key: KeyHash([id as u8; 32]),
        role,
    };
    let part =
        |id, voter, observer| Part { id: NodeId(id), voter, outgoing: false, observer, witness: false };
    let token = NewToken {
        id: TokenId([7; 8]),
        site_key: SiteKey([1; 32]),
        join_public: [2; 32],
        role: MemberRole::Voter,
        uses: 2,
        ttl_ms: 86_400_000,
        replaces: None,
        made_by: NodeId(1),
    };
    let parts = vec![part(1, true, false), part(2, true, false), part(3, false, true)];
    vec![
        entry::open(SourceKind::Box, "box1", 5, Epoch(77)),
        report.finish_hashed().0,
        second.finish_hashed().0,
        entry::close(SiteTime(1_700_000_200_000)),
        entry::number(10),
        entry::delivered(1),
        entry::set(30, "window.base", "30s"),
        entry::set(40, "history.bytes_max", "1"),
        entry::tick(),
        entry::bootstrap(&[record(1, MemberRole::Voter), record(2, MemberRole::Voter)]),
        entry::member(1, &MemberChange::Put(record(3, MemberRole::Observer))),
        entry::member(2, &MemberChange::Role { name: "box3".to_owned(), role: MemberRole::Voter }),
        entry::member(3, &MemberChange::Remove { name: "box3".to_owned() }),
        entry::configuration(&ConfigurationRecord { parts, leaves_by_itself: false }),
        entry::step_clock(),
        entry::level(tallyd::site::Level::MAX),
        signed.finish_hashed().0,
        entry::token(4, &TokenChange::Create(token.clone())),
        entry::join(&JoinRequest {
            token: token.id,
            key: KeyHash([4; 32]),
            name: "box4".to_owned(),
            address: "10.0.0.4:7400".to_owned(),
        }),
        entry::token(
            5,
            &TokenChange::Create(NewToken { replaces: Some("box2".to_owned()), ..token.clone() }),
        ),
        entry::token(6, &TokenChange::Revoke(token.id)),
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let stamp =
        |at: u64| Stamp { site: SiteTime(1_700_000_000_000 + at), elapsed: Elapsed(1000 + at), synced: true };
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for (place, body) in (0..).zip(bodies()) {
        let payload = StampedEntry::new(stamp(place * 20_000), &body);
        let mut one = Vec::new();
        put_part(&mut one, &payload);
        all.extend_from_slice(&one);
        seeds.push(one);
    }
    seeds.push(all);
    seeds
}
