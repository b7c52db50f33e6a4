//! The outbox as bytes. The slab's places do not show: the queue's order is all there is.

use tally_core::report::Amount;

use super::*;
use crate::codec::{Malformed, Reader};

impl Outbox {
    pub(in crate::site) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.delivered.to_le_bytes());
        out.extend_from_slice(&(self.chains.len() as u32).to_le_bytes());
        for chain in &self.chains {
            out.extend_from_slice(&chain.numbered.to_le_bytes());
        }
        for summary in &self.numbered {
            put_summary(out, summary);
        }
        out.extend_from_slice(&(self.unnumbered as u32).to_le_bytes());
        let (mut at, mut order, mut sweep_order) = (self.queue.first, 0u32, NONE);
        while let Some(node) = self.nodes.get(at as usize) {
            if at == self.sweep.at {
                sweep_order = order;
            }
            out.extend_from_slice(&node.series.to_le_bytes());
            out.extend_from_slice(&node.start.to_le_bytes());
            out.extend_from_slice(&node.end.to_le_bytes());
            out.extend_from_slice(&[node.level, u8::from(node.late), u8::from(node.synced)]);
            node.amount.put(out);
            at = node.next;
            order += 1;
        }
        out.extend_from_slice(&sweep_order.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.sweep.any), u8::from(self.sweep.merged)]);
    }

    /// `is_kind` tells whether an amount is of a series' kind, and the series is there.
    pub(in crate::site) fn read(
        reader: &mut Reader<'_>,
        is_kind: impl Fn(u32, &Amount) -> bool,
    ) -> Result<Outbox, Malformed> {
        let mut outbox = Outbox::new();
        outbox.last = reader.u64()?;
        outbox.delivered = reader.u64()?;
        let chains = reader.u32()?;
        for _ in 0..chains {
            outbox.chains.push(Chains { numbered: reader.i128()?, waiting: 0, ends: [EMPTY; 2] });
        }
        let undelivered = outbox.last.checked_sub(outbox.delivered).ok_or(Malformed)?;
        for order in 1..=undelivered {
            let seq = outbox.delivered + order;
            outbox.numbered.push_back(read_summary(reader, seq, &is_kind)?);
        }
        let count = reader.u32()?;
        for place in 0..count {
            let series = reader.u32()?;
            let (start, end) = (reader.u64()?, reader.u64()?);
            let level = reader.u8()?;
            let marks = Marks { late: reader.bool()?, synced: reader.bool()? };
            let amount = Packed::read(reader)?;
            if series >= chains || start >= end || !is_kind(series, &amount.amount()) {
                return Err(Malformed);
            }
            // Not `push`: a late one that stands apart stays apart.
            outbox.append(Closed { series, start, end, amount }, marks);
            outbox.nodes[place as usize].level = level;
        }
        // Places are given out in order here, so an order is a place.
        let at = reader.u32()?;
        if at != NONE && at >= count {
            return Err(Malformed);
        }
        outbox.sweep = Sweep { at, any: reader.bool()?, merged: reader.bool()? };
        Ok(outbox)
    }
}

#[cfg(test)]
impl Outbox {
    /// All without a number, oldest first.
    pub(in crate::site) fn unnumbered(&self) -> Vec<Summary> {
        let mut summaries = Vec::new();
        let mut at = self.queue.first;
        while let Some(node) = self.nodes.get(at as usize) {
            summaries.push(Summary {
                seq: None,
                series: SeriesId(node.series),
                start: SiteTime(node.start),
                span_ms: node.end - node.start,
                amount: node.amount.amount(),
                total: None,
                late: node.late,
                synced: node.synced,
            });
            at = node.next;
        }
        summaries
    }

    /// The bytes, counted one by one.
    #[cfg(test)]
    pub(in crate::site) fn counted_bytes(&self) -> u64 {
        let unnumbered = self.unnumbered().into_iter();
        let bytes = unnumbered.map(|summary| SUMMARY_BYTES + Packed::new(summary.amount).heap_bytes());
        bytes.sum::<u64>() + self.numbered.len() as u64 * NUMBERED_BYTES
    }
}

/// A numbered summary without its number.
pub(in crate::site) fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    out.extend_from_slice(&summary.series.0.to_le_bytes());
    out.extend_from_slice(&summary.start.0.to_le_bytes());
    out.extend_from_slice(&summary.span_ms.to_le_bytes());
    out.extend_from_slice(&summary.total.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&[u8::from(summary.late), u8::from(summary.synced)]);
    Packed::new(summary.amount).put(out);
}

/// What [`put_summary`] wrote.
pub(in crate::site) fn read_summary(
    reader: &mut Reader<'_>,
    seq: u64,
    is_kind: &impl Fn(u32, &Amount) -> bool,
) -> Result<Summary, Malformed> {
    let series = reader.u32()?;
    let start = SiteTime(reader.u64()?);
    let span_ms = reader.u64()?;
    let total = Some(reader.i128()?);
    let (late, synced) = (reader.bool()?, reader.bool()?);
    let amount = Packed::read(reader)?.amount();
    if !is_kind(series, &amount) {
        return Err(Malformed);
    }
    Ok(Summary { seq: Some(seq), series: SeriesId(series), start, span_ms, amount, total, late, synced })
}
