//! Readdresses the body of a report, for a box whose epoch was closed while a batch was frozen.

use tally_core::id::{Epoch, ReportNumber, SourceId};

use super::{Body, EntryError};
use crate::codec::{Reader, put_varint};

/// The same cells as another report. Only for a body whose old epoch is closed for good or whose
/// number another report has: the old one can never be applied any more.
///
/// # Errors
/// [`EntryError::Malformed`] for bytes that do not begin as a report.
pub fn readdress(
    body: &[u8],
    source: SourceId,
    epoch: Epoch,
    number: ReportNumber,
) -> Result<Body, EntryError> {
    let mut reader = Reader::new(body);
    let kind = reader.u8()?;
    let (_source, _number, _epoch) = (reader.varint()?, reader.varint()?, reader.u64()?);
    let mut out = Vec::with_capacity(body.len() + 8);
    out.push(kind);
    put_varint(&mut out, source.0);
    put_varint(&mut out, number.get());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(reader.rest());
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SeriesId;
    use crate::site::entry::{ReportWriter, SeriesRef};
    use tally_core::report::Amount;
    use tally_core::time::SiteTime;

    #[test]
    fn only_the_address_changes() {
        let write = |source, epoch, number| {
            let number = ReportNumber::new(number).unwrap();
            let mut writer = ReportWriter::new(SourceId(source), Epoch(epoch), number, 0);
            writer.cell(SeriesRef::Id(SeriesId(5)), SiteTime(60_000), &Amount::Counter(7));
            writer.finish_hashed().0
        };
        let moved = readdress(&write(300, 9, 77), SourceId(2), Epoch(8), ReportNumber::FIRST);
        assert_eq!(moved, Ok(write(2, 8, 1)));
    }
}
